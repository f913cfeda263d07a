"""softmax-confidence: how sharply attention heads look."""

from __future__ import annotations

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.one_pass import record
from proxies.registry import ProxyError, proxy


@proxy(
    name="softmax-confidence",
    paper="Serianni & Kalita, Training-free Neural Architecture Search for RNNs and Transformers, ACL 2023 "
    "(arXiv 2306.00288), section 4.2",
    equation="mean over heads and samples of the largest attention probability softmax(QK/sqrt d)",
    needs=frozenset({"data"}),
    families="transformers",
)
def softmax_confidence(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Of every attention that runs; positions that can see only themselves are left out of probabilities."""
    heads = record(model, batch, splits).peaks
    if not heads:
        raise ProxyError("softmax-confidence needs attention, but the model ran none")
    return float(torch.cat(heads, dim=1).double().mean())
