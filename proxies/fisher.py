"""fisher: how much the loss depends on each channel's activations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from proxies.batch import ProbeBatch
from proxies.gradients import losses
from proxies.registry import ProxyError, proxy


@proxy(
    name="fisher",
    paper="Turner et al., BlockSwap, ICLR 2020 (arXiv 1906.04113), eq. 3, after Theis et al. 2018 (arXiv 1801.05787)",
    equation="sum over linear layers and channels c of 1/(2B) sum_n (sum over positions of a_nc * dL/da_nc)^2",
    needs=frozenset({"grad", "labels", "data"}),
)
def fisher(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """a is a linear or convolutional layer's output; layers before the first trainable weight are left out."""
    outputs: list[tuple[Tensor, int]] = []

    def keep(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            outputs.append((output, 1 if isinstance(module, nn.Conv2d) else -1))

    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    handles = [layer.register_forward_hook(keep) for layer in layers]
    total, seen = 0.0, False
    try:
        for loss in losses(model, batch, splits, "fisher"):
            grads = torch.autograd.grad(loss, [output for output, _ in outputs], allow_unused=True)
            for (output, channel), grad in zip(outputs, grads, strict=True):
                if grad is not None:
                    seen = True
                    moved = (output.detach() * grad).movedim(channel, -1)
                    total += float(moved.flatten(1, -2).sum(dim=1).double().square().sum())
            outputs.clear()
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise ProxyError("fisher needs linear layers on the way to the loss, but found none")
    return total / (2 * len(batch))
