"""One context in which a proxy may do what it likes to a model, which comes out as it went in."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def isolated(model: nn.Module, *, restore_weights: bool = False) -> Iterator[None]:
    """Evaluation mode inside; weights, buffers, grads, requires_grad, modes and random states as found after it.

    Weights are copied (and put back) only on `restore_weights`, because a copy of a language model is neither small nor
    fast; without it, a weight that was written to is an error of the proxy.

    Raises: RuntimeError where a proxy wrote to weights without saying so.
    """
    modules, parameters = list(model.modules()), list(model.parameters())  # each walk of a model takes milliseconds
    tensors = [*parameters, *model.buffers()]
    copies = [tensor.detach().clone() for tensor in tensors] if restore_weights else None
    versions = [tensor._version for tensor in tensors]
    found = [(parameter, parameter.grad, parameter.requires_grad) for parameter in parameters]
    in_training = [module for module in modules if module.training]
    python_state = random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            for parameter in parameters:
                parameter.grad = None
            _set_modes(in_training, training=False)
            yield
        finally:
            random.setstate(python_state)
            _set_modes([module for module in modules if module.training], training=False)
            _set_modes(in_training, training=True)
            for parameter, grad, requires_grad in found:
                parameter.grad = grad
                parameter.requires_grad_(requires_grad)
            if copies is not None:
                _put_back(tensors, copies)
    if copies is None and versions != [tensor._version for tensor in tensors]:
        raise RuntimeError("a proxy wrote to the model's weights; it must be declared with changes_weights=True")


def _set_modes(modules: Iterable[nn.Module], *, training: bool) -> None:
    for module in modules:
        module.training = training


def _put_back(tensors: list[Tensor], copies: list[Tensor]) -> None:
    with torch.no_grad():
        for tensor, copy in zip(tensors, copies, strict=True):
            tensor.copy_(copy)
