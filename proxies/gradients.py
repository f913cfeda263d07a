"""Gradients of the labels' loss, of a whole batch in any number of parts or of each sample alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from proxies.batch import ProbeBatch
from proxies.registry import ProxyError


def trainable(model: nn.Module, what: str) -> list[nn.Parameter]:
    """The weights that require gradients. Raises: ProxyError naming the proxy where there are none."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not weights:
        raise ProxyError(f"{what} needs weights that require gradients, but the model is frozen")
    return weights


def losses(model: nn.Module, batch: ProbeBatch, splits: int, what: str) -> Iterator[Tensor]:
    """Shares of the mean loss of the batch's labels, one a part: their sum is that mean, however it is split.

    Raises: ProxyError where the batch has no labels.
    """
    if not batch.targets:
        raise ProxyError(f"{what} needs labels, but the batch has none")
    for part in batch.split(splits):
        if part.targets:
            with torch.enable_grad():
                loss: Tensor = model(**part.inputs(), labels=part.labels).loss
            yield loss * (part.targets / batch.targets)


def loss_gradients(model: nn.Module, batch: ProbeBatch, splits: int, what: str) -> list[tuple[nn.Parameter, Tensor]]:
    """(weight, dL/dweight) of every trainable weight that the loss depends on."""
    weights = trainable(model, what)
    total: list[Tensor | None] = [None] * len(weights)
    for loss in losses(model, batch, splits, what):
        grads = torch.autograd.grad(loss, weights, allow_unused=True)
        total = [_add(kept, grad) for kept, grad in zip(total, grads, strict=True)]
    return [(weight, grad) for weight, grad in zip(weights, total, strict=True) if grad is not None]


def sample_gradients(model: nn.Module, batch: ProbeBatch, what: str) -> Iterator[list[Tensor]]:
    """For each sample, dL_i/dweight of every trainable weight; L_i is the mean over that sample's labels."""
    weights = trainable(model, what)
    found = False
    for sample in batch.split(len(batch)):
        for loss in losses(model, sample, 1, what) if sample.targets else ():
            found = True
            grads = torch.autograd.grad(loss, weights, allow_unused=True)
            yield [torch.zeros_like(w) if g is None else g for w, g in zip(weights, grads, strict=True)]
    if not found:
        raise ProxyError(f"{what} needs labels, but the batch has none")


def _add(kept: Tensor | None, grad: Tensor | None) -> Tensor | None:
    if kept is None or grad is None:
        return grad if kept is None else kept
    return kept.add_(grad)
