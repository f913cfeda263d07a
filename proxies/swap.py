"""swap: how many different patterns the units show over the samples."""

from __future__ import annotations

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.one_pass import activations
from proxies.registry import proxy


@proxy(
    name="swap",
    paper="Peng et al., SWAP-NAS: Sample-Wise Activation Patterns for Ultra-fast NAS, ICLR 2024 (arXiv "
    "2403.04161), definition 3.2",
    equation="number of distinct columns of the 0/1 matrix (samples x units), a unit being on where the input of "
    "its activation is positive",
    needs=frozenset({"data"}),
    families="networks with activations between their layers",
)
def swap(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Units are those that run on this batch, at every position; B samples have at most 2^B patterns."""
    codes = torch.cat(activations(model, batch, splits, "swap").codes, dim=1)
    return float(torch.unique(codes.to(torch.uint8), dim=1).shape[1])
