"""fisher: how much the loss depends on each channel's activations."""

from __future__ import annotations

from torch import nn

from proxies.batch import ProbeBatch
from proxies.gradients import saliency
from proxies.registry import ProxyError, proxy


@proxy(
    name="fisher",
    paper="Turner et al., BlockSwap, ICLR 2020 (arXiv 1906.04113), eq. 3, after Theis et al. 2018 (arXiv 1801.05787)",
    equation="sum over linear layers and channels c of 1/(2B) sum_n (sum over positions of a_nc * dL/da_nc)^2",
    needs=frozenset({"grad", "labels", "data"}),
)
def fisher(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """a is a linear or convolutional layer's output; layers before the first trainable weight are left out."""
    total = saliency(model, batch, splits, "fisher")
    if total is None:
        raise ProxyError("fisher needs linear layers on the way to the loss, but found none")
    return total / (2 * len(batch))
