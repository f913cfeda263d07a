"""One forward and one backward pass of a batch, and all that proxies read of the two.

Activation proxies, the loss, gradients by weights, gradients by layers' outputs and those of each sample see the same
images, text and weights: where several are asked for, one pass serves them all (`proxies.shared`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from proxies.batch import ProbeBatch
from proxies.recording import Recording, heard, joined
from proxies.registry import ProxyError
from proxies.shared import Reach, once, reach_inside


@dataclass(frozen=True, slots=True)
class SampleStatistics:
    """Of one weight's gradients g_i over the samples i."""

    mean: Tensor  # of |g_i|
    variance: Tensor  # of |g_i|
    signs: Tensor  # sum of sign(g_i)


@dataclass(slots=True)
class Pass:
    """What was seen on the way; as far as it went."""

    recording: Recording
    loss: float = 0.0  # mean over the batch's labels
    gradients: list[tuple[nn.Parameter, Tensor]] = field(default_factory=list)  # of the weights that it depends on
    saliency: float | None = None  # sum over channels and samples of (sum over positions of a dL/da)^2
    samples: list[SampleStatistics] = field(default_factory=list)  # one of every trainable weight


def one_pass(model: nn.Module, batch: ProbeBatch, splits: int, wanted: Reach) -> Pass:
    """A pass that goes as far as `wanted` or as those who share it need, but no farther than there is something.

    The values are the same for any number of splits; samples alone are parts of their own.
    """
    reach = reach_inside(wanted)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not batch.targets:
        reach = Reach.ACTIVATIONS
    elif not weights:
        reach = min(reach, Reach.LOSS)
    parts = len(batch) if reach is Reach.SAMPLES else splits
    return once(f"pass-{reach.name}", model, batch, parts, lambda: _run(model, batch, parts, reach, weights))


def record(model: nn.Module, batch: ProbeBatch, splits: int) -> Recording:
    """Activations and attention, from the batch's images and text; the encoder counts only where it runs."""
    return one_pass(model, batch, splits, Reach.ACTIVATIONS).recording


def activations(model: nn.Module, batch: ProbeBatch, splits: int, what: str) -> Recording:
    """The same, of a model that calls activations. Raises: ProxyError."""
    found = record(model, batch, splits)
    if not found.codes:
        raise ProxyError(f"{what} needs activations, but the model called none")
    return found


def streams(model: nn.Module, batch: ProbeBatch, splits: int, what: str) -> list[Tensor]:
    """(L + 1) hidden states (B, T, H). Raises: ProxyError where the model has no decoder layers."""
    found = record(model, batch, splits).streams
    if len(found) < 2:
        raise ProxyError(f"{what} needs decoder layers, but the model ran none")
    return found


def _run(model: nn.Module, batch: ProbeBatch, parts: int, reach: Reach, weights: list[nn.Parameter]) -> Pass:
    recordings: list[Recording] = []
    found = Pass(Recording())
    totals: list[Tensor | None] = [None] * len(weights)
    samples = _Samples(weights) if reach is Reach.SAMPLES else None
    for part in batch.split(parts):
        recordings.append(Recording())
        outputs: list[tuple[Tensor, int]] = []
        backward = reach >= Reach.GRADIENTS and part.targets > 0
        with (
            torch.set_grad_enabled(backward),
            heard(model, recordings[-1]),
            _outputs_heard(model, outputs) if backward else nullcontext(),
        ):
            asked = {"labels": part.labels} if reach >= Reach.LOSS and part.targets else {"logits_to_keep": 1}
            loss = model(**part.inputs(), **asked).loss
        if "labels" not in asked:
            continue
        share = part.targets / batch.targets
        found.loss += float(loss.detach()) * share
        if not backward:
            continue
        layers = [output for output, _ in outputs]
        grads = torch.autograd.grad(loss, [*weights, *layers], allow_unused=True)
        own, through = grads[: len(weights)], grads[len(weights) :]
        totals = [_add(total, grad, share) for total, grad in zip(totals, own, strict=True)]
        found.saliency = _saliency(outputs, through, share, found.saliency)
        if samples is not None:
            samples.take(own)
    found.recording = joined(recordings)
    found.gradients = [(weight, total) for weight, total in zip(weights, totals, strict=True) if total is not None]
    found.samples = samples.statistics() if samples is not None else []
    return found


def _add(total: Tensor | None, grad: Tensor | None, share: float) -> Tensor | None:
    if grad is None:
        return total
    return grad * share if total is None else total.add_(grad, alpha=share)


def _saliency(
    outputs: list[tuple[Tensor, int]], grads: tuple[Tensor | None, ...], share: float, before: float | None
) -> float | None:
    """`before` and (sum over positions of a dL/da)^2 of every channel and sample; None where no layer leads to L."""
    for (output, channel), grad in zip(outputs, grads, strict=True):
        if grad is not None:
            moved = (output.detach() * grad * share).movedim(channel, -1)
            sums = moved.reshape(len(moved), -1, moved.shape[-1]).sum(dim=1)
            before = (before or 0.0) + float(sums.double().square().sum())
    return before


@contextmanager
def _outputs_heard(model: nn.Module, outputs: list[tuple[Tensor, int]]) -> Iterator[None]:
    """(output, axis of its channels) of every linear and convolutional layer that gradients reach."""

    def keep(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            outputs.append((output, 1 if isinstance(module, nn.Conv2d) else -1))

    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Samples:
    """Mean and variance by Welford's update (1962): the variance of many equal numbers must come out as zero."""

    def __init__(self, weights: list[nn.Parameter]) -> None:
        self.means = [torch.zeros_like(weight) for weight in weights]
        self.squares = [torch.zeros_like(weight) for weight in weights]
        self.signs = [torch.zeros_like(weight) for weight in weights]
        self.count = 0

    def take(self, grads: tuple[Tensor | None, ...]) -> None:
        """One sample's gradient of every weight."""
        self.count += 1
        for grad, mean, square, sign in zip(grads, self.means, self.squares, self.signs, strict=True):
            size = torch.zeros_like(mean) if grad is None else grad.abs()
            step = size - mean
            mean.add_(step / self.count)
            square.add_(step * (size - mean))
            if grad is not None:
                sign.add_(grad.sign())

    def statistics(self) -> list[SampleStatistics]:
        variances = [square / self.count for square in self.squares]
        return [SampleStatistics(*one) for one in zip(self.means, variances, self.signs, strict=True)]
