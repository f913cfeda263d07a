"""snip: how much the loss depends on each weight, summed."""

from __future__ import annotations

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.gradients import loss_gradients
from proxies.registry import proxy


@proxy(
    name="snip",
    paper="Lee et al., SNIP: Single-shot Network Pruning based on Connection Sensitivity, ICLR 2019 "
    "(arXiv 1810.02340); summed over weights as in Abdelfattah et al., ICLR 2021 (arXiv 2101.08134)",
    equation="sum over trainable weights of |w * dL/dw|, SNIP's connection sensitivity before its normalisation",
    needs=frozenset({"grad", "labels", "data"}),
)
def snip(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """L is the mean loss of the batch's labels; weights that do not require gradients are left out."""
    pairs = loss_gradients(model, batch, splits, "snip")
    return sum(float((grad * weight.detach()).abs().sum(dtype=torch.float64)) for weight, grad in pairs)
