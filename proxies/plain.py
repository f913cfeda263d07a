"""plain: the first-order change of the loss if every weight were taken away."""

from __future__ import annotations

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.gradients import loss_gradients
from proxies.registry import proxy


@proxy(
    name="plain",
    paper="Mozer & Smolensky, Skeletonization, NeurIPS 1988; as a score of networks: Abdelfattah et al., Zero-Cost "
    "Proxies for Lightweight NAS, ICLR 2021 (arXiv 2101.08134)",
    equation="sum over trainable weights of w * dL/dw",
    needs=frozenset({"grad", "labels", "data"}),
)
def plain(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Signed, unlike snip: parts that cancel say nothing."""
    pairs = loss_gradients(model, batch, splits, "plain")
    return sum(float((grad * weight.detach()).sum(dtype=torch.float64)) for weight, grad in pairs)
