"""grasp: how removing each weight would change the gradient flow."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from proxies.batch import ProbeBatch
from proxies.gradients import loss_gradients, losses, trainable
from proxies.registry import proxy


@proxy(
    name="grasp",
    paper="Wang et al., Picking Winning Tickets Before Training by Preserving Gradient Flow, ICLR 2020 "
    "(arXiv 2002.07376), eq. 8; summed as in Abdelfattah et al., ICLR 2021",
    equation="sum over trainable weights of -w * (H g), g = dL/dw, H the Hessian of L",
    needs=frozenset({"grad", "labels", "data"}),
)
def grasp(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Two passes: g of the whole batch, then H g by differentiating g . stop_gradient(g)."""
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels cannot be differentiated twice
        known = {id(weight): grad for weight, grad in _pairs(model, batch, splits)}
        weights = [weight for weight in trainable(model, "grasp") if id(weight) in known]
        total = 0.0
        for loss in losses(model, batch, splits, "grasp"):
            grads = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
            pairs = [(grad, known[id(w)]) for grad, w in zip(grads, weights, strict=True) if grad is not None]
            flow = torch.stack([(grad * whole).sum() for grad, whole in pairs]).sum()
            if flow.requires_grad:
                products = torch.autograd.grad(flow, weights, allow_unused=True)
                total -= sum(
                    float((weight.detach() * product).sum(dtype=torch.float64))
                    for weight, product in zip(weights, products, strict=True)
                    if product is not None
                )
    return total


def _pairs(model: nn.Module, batch: ProbeBatch, splits: int) -> list[tuple[nn.Parameter, torch.Tensor]]:
    found = {weight.data_ptr(): grad for weight, grad in loss_gradients(model, batch, splits, "grasp")}
    weights = trainable(model, "grasp")
    return [(weight, found[weight.data_ptr()]) for weight in weights if weight.data_ptr() in found]
