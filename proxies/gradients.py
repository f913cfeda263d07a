"""Gradients of the labels' loss, of a whole batch in any number of parts or of each sample alone."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from proxies.batch import ProbeBatch
from proxies.one_pass import Pass, SampleStatistics, one_pass
from proxies.registry import ProxyError
from proxies.shared import Reach


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
            loss: Tensor = model(**part.inputs(), labels=part.labels).loss
            yield loss * (part.targets / batch.targets)


def mean_loss(model: nn.Module, batch: ProbeBatch, splits: int, what: str) -> float:
    """Raises: ProxyError where the batch has no labels."""
    if not batch.targets:
        raise ProxyError(f"{what} needs labels, but the batch has none")
    return one_pass(model, batch, splits, Reach.LOSS).loss


def loss_gradients(model: nn.Module, batch: ProbeBatch, splits: int, what: str) -> list[tuple[nn.Parameter, Tensor]]:
    """(weight, dL/dweight) of every trainable weight that the loss depends on; not to be written to."""
    return _backward(model, batch, splits, what, Reach.GRADIENTS).gradients


def saliency(model: nn.Module, batch: ProbeBatch, splits: int, what: str) -> float | None:
    """Sum over linear and convolutional layers, channels and samples of (sum over positions of a dL/da)^2."""
    return _backward(model, batch, splits, what, Reach.GRADIENTS).saliency


def sample_statistics(model: nn.Module, batch: ProbeBatch, what: str) -> list[SampleStatistics]:
    """One of every trainable weight; L_i is the mean over that sample's labels, samples without labels are left out."""
    return _backward(model, batch, 1, what, Reach.SAMPLES).samples


def _backward(model: nn.Module, batch: ProbeBatch, splits: int, what: str, reach: Reach) -> Pass:
    trainable(model, what)
    if not batch.targets:
        raise ProxyError(f"{what} needs labels, but the batch has none")
    return one_pass(model, batch, splits, reach)
