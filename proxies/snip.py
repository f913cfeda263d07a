"""snip: how much the loss depends on each weight, summed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from proxies.batch import ProbeBatch
from proxies.registry import ProxyError, proxy


@proxy(
    name="snip",
    paper="Lee et al., SNIP: Single-shot Network Pruning based on Connection Sensitivity, ICLR 2019 "
    "(arXiv 1810.02340); summed over weights as in Abdelfattah et al., ICLR 2021 (arXiv 2101.08134)",
    equation="sum over trainable weights of |w * dL/dw|, SNIP's connection sensitivity before its normalisation",
    needs=frozenset({"grad", "labels", "data"}),
)
def snip(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """L is the mean loss of the batch's labels; weights that do not require gradients are left out."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not weights:
        raise ProxyError("snip needs weights that require gradients, but the model is frozen")
    if not batch.targets:
        raise ProxyError("snip needs labels, but the batch has none")
    total: list[Tensor | None] = [None] * len(weights)
    for part in batch.split(splits):
        if not part.targets:
            continue
        with torch.enable_grad():
            loss = model(**part.inputs(), labels=part.labels).loss
        # The mean over the whole batch is the mean of the parts, weighted by how many positions each has.
        share = torch.as_tensor(part.targets / batch.targets, dtype=loss.dtype)
        grads = torch.autograd.grad(loss, weights, grad_outputs=share, allow_unused=True)
        total = [_add(kept, grad) for kept, grad in zip(total, grads, strict=True)]
    pairs = [(weight.detach(), grad) for weight, grad in zip(weights, total, strict=True) if grad is not None]
    return sum(float(grad.mul_(weight).abs_().sum(dtype=torch.float64)) for weight, grad in pairs)


def _add(kept: Tensor | None, grad: Tensor | None) -> Tensor | None:
    if kept is None or grad is None:
        return grad if kept is None else kept
    return kept.add_(grad)
