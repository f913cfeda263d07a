"""Gradients of the labels' loss, of a whole batch in any number of parts or of each sample alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from proxies.batch import ProbeBatch
from proxies.registry import ProxyError
from proxies.shared import once


def trainable(model: nn.Module, what: str) -> list[nn.Parameter]:
    """The weights that require gradients. Raises: ProxyError naming the proxy where there are none."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not weights:
        raise ProxyError(f"{what} needs weights that require gradients, but the model is frozen")
    return weights


def losses(model: nn.Module, batch: ProbeBatch, splits: int, what: str, *, graph: bool = True) -> Iterator[Tensor]:
    """Shares of the mean loss of the batch's labels, one a part: their sum is that mean, however it is split.

    `graph`: whether gradients will be asked for.

    Raises: ProxyError where the batch has no labels.
    """
    if not batch.targets:
        raise ProxyError(f"{what} needs labels, but the batch has none")
    for part in batch.split(splits):
        if part.targets:
            with torch.set_grad_enabled(graph):
                loss: Tensor = model(**part.inputs(), labels=part.labels).loss
            yield loss * (part.targets / batch.targets)


def loss_gradients(model: nn.Module, batch: ProbeBatch, splits: int, what: str) -> list[tuple[nn.Parameter, Tensor]]:
    """(weight, dL/dweight) of every trainable weight that the loss depends on; not to be written to."""
    return once("loss_gradients", model, batch, splits, lambda: _loss_gradients(model, batch, splits, what))


def _loss_gradients(model: nn.Module, batch: ProbeBatch, splits: int, what: str) -> list[tuple[nn.Parameter, Tensor]]:
    weights = trainable(model, what)
    total: list[Tensor | None] = [None] * len(weights)
    for loss in losses(model, batch, splits, what):
        grads = torch.autograd.grad(loss, weights, allow_unused=True)
        total = [_add(kept, grad) for kept, grad in zip(total, grads, strict=True)]
    return [(weight, grad) for weight, grad in zip(weights, total, strict=True) if grad is not None]


@dataclass(frozen=True, slots=True)
class SampleStatistics:
    """Of one weight's gradients g_i over the samples i."""

    mean: Tensor  # of |g_i|
    variance: Tensor  # of |g_i|
    signs: Tensor  # sum of sign(g_i)


def sample_statistics(model: nn.Module, batch: ProbeBatch, what: str) -> list[SampleStatistics]:
    """One of every trainable weight; L_i is the mean over that sample's labels, samples without labels are left out."""
    return once("sample_statistics", model, batch, 1, lambda: _sample_statistics(model, batch, what))


def _sample_statistics(model: nn.Module, batch: ProbeBatch, what: str) -> list[SampleStatistics]:
    weights = trainable(model, what)
    # Welford's update (1962): the variance of many equal numbers must come out as zero.
    means = [torch.zeros_like(weight) for weight in weights]
    squares = [torch.zeros_like(weight) for weight in weights]
    signs = [torch.zeros_like(weight) for weight in weights]
    count = 0
    for sample in batch.split(len(batch)):
        for loss in losses(model, sample, 1, what) if sample.targets else ():
            count += 1
            grads = torch.autograd.grad(loss, weights, allow_unused=True)
            for grad, mean, square, sign in zip(grads, means, squares, signs, strict=True):
                size = torch.zeros_like(mean) if grad is None else grad.abs()
                step = size - mean
                mean.add_(step / count)
                square.add_(step * (size - mean))
                if grad is not None:
                    sign.add_(grad.sign())
    if not count:
        raise ProxyError(f"{what} needs labels, but the batch has none")
    return [SampleStatistics(*one) for one in zip(means, (s / count for s in squares), signs, strict=True)]


def _add(kept: Tensor | None, grad: Tensor | None) -> Tensor | None:
    if kept is None or grad is None:
        return grad if kept is None else kept
    return kept.add_(grad)
