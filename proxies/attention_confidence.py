"""attention-confidence: how large attention heads speak out."""

from __future__ import annotations

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.one_pass import record
from proxies.registry import ProxyError, proxy


@proxy(
    name="attention-confidence",
    paper="Serianni & Kalita, Training-free Neural Architecture Search for RNNs and Transformers, ACL 2023 "
    "(arXiv 2306.00288), section 4.2",
    equation="mean over heads and samples of max |Att_h(x_n)|, Att_h the output of attention head h",
    needs=frozenset({"data"}),
    families="transformers",
)
def attention_confidence(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Of every attention that runs."""
    heads = record(model, batch, splits).heights
    if not heads:
        raise ProxyError("attention-confidence needs attention, but the model ran none")
    return float(torch.cat(heads, dim=1).double().mean())
