"""az-trainability: how well gradients keep their length on their way back through each layer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from proxies.anatomy import decoder_layers
from proxies.batch import ProbeBatch
from proxies.registry import proxy


@proxy(
    name="az-trainability",
    paper="Lee & Ham, AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search, CVPR 2024 (arXiv "
    "2403.19232), eq. 4 to 7",
    equation="mean over layers l of 2 - s_l - 1/s_l, s_l the spectral norm of A_l = mean over positions of g_(l-1) "
    "g_l^T, g_l of random signs",
    needs=frozenset({"grad", "data"}),
    families="models with a stack of layers",
)
def az_trainability(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Layers are the decoder layers; A_l estimates the Jacobian, since random signs are white."""
    sums: list[Tensor] = []
    positions = 0
    for number, part in enumerate(batch.split(splits)):
        hidden = _streams_with_graph(model, part)
        first = number * -(-len(batch) // splits)
        positions += hidden[0].shape[0] * hidden[0].shape[1]
        for layer, (before, after) in enumerate(pairwise(hidden)):
            shape = (len(batch), *after.shape[1:])
            noise = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(layer)).to(after.dtype) * 2 - 1
            noise = noise[first : first + len(after)]
            (grad,) = torch.autograd.grad(after, before, noise, retain_graph=True)
            product = grad.flatten(0, 1).T @ noise.flatten(0, 1)
            if layer < len(sums):
                sums[layer] += product
            else:
                sums.append(product)
    norms = [float(torch.linalg.matrix_norm(total.double() / positions, 2)) for total in sums]
    return sum(2 - norm - 1 / max(norm, 1e-12) for norm in norms) / len(norms)


def _streams_with_graph(model: nn.Module, part: ProbeBatch) -> list[Tensor]:
    """Into the first decoder layer and out of each: (B, T, H), every one with a gradient to the one before."""
    hidden: list[Tensor] = []

    def before(_: nn.Module, args: Any, kwargs: Any) -> Any:
        stream = (args[0] if args else kwargs["hidden_states"]).detach().requires_grad_(True)
        hidden.append(stream)
        return ((stream, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": stream})

    def after(_: nn.Module, __: Any, output: Any) -> None:
        hidden.append(output if isinstance(output, Tensor) else output[0])

    layers = decoder_layers(model)
    handles = [layers[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [layer.register_forward_hook(after) for layer in layers]
    try:
        with torch.enable_grad():
            model(**part.inputs(), logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    return hidden
