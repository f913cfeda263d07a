"""position-probe: whether a visual token still tells where it comes from."""

from __future__ import annotations

import math

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.probing import before_and_after, read_out
from proxies.registry import proxy


@proxy(
    name="position-probe",
    paper="this project's hypothesis on token compression; linear probes of Alain & Bengio, 2016 (arXiv 1610.01644)",
    equation="R^2 of a ridge regression from a token to its row and column, on tokens left out of the fit",
    needs=frozenset({"data", "weights"}),
    families="multimodal models whose encoder hands out its tokens",
)
def position_probe(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """0 for a single token, which has no place."""
    _, after = before_and_after(model, batch, splits)
    count = after.shape[1]
    side = math.isqrt(count)
    index = torch.arange(count)
    if side**2 == count:
        places = torch.stack([index // side, index % side], dim=1) / max(1, side - 1)
    else:
        places = index[:, None] / max(1, count - 1)
    return read_out(after.flatten(0, 1), places.double().repeat(len(batch), 1))
