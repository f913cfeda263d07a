"""A proxy leaves the model as it found it: weights, gradients, flags, mode and random state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def isolated(model: nn.Module, *, restore_weights: bool = False) -> Iterator[None]:
    """Everything a score may touch is put back, also after an exception.

    Copying weights is only paid for where a proxy changes them.
    """
    modes = {module: module.training for module in model.modules()}
    flags = {weight: weight.requires_grad for weight in model.parameters()}
    gradients = {weight: weight.grad for weight in model.parameters()}
    tensors = [*model.parameters(), *model.buffers()] if restore_weights else []
    values = [tensor.detach().clone() for tensor in tensors]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            for weight in gradients:
                weight.grad = None
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(tensors, values, strict=True):
                    tensor.copy_(value)
            for module, training in modes.items():
                module.training = training
            for weight, gradient in gradients.items():
                weight.grad = gradient
                weight.requires_grad_(flags[weight])
