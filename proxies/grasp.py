"""grasp: how removing each weight would change the gradient flow."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from proxies.batch import ProbeBatch
from proxies.gradients import loss_gradients, losses
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
        pairs = loss_gradients(model, batch, splits, "grasp")
        weights, flows = [weight for weight, _ in pairs], [grad for _, grad in pairs]
        total = 0.0
        for loss in losses(model, batch, splits, "grasp"):
            grads = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
            terms = [(grad * whole).sum() for grad, whole in zip(grads, flows, strict=True) if grad is not None]
            flow = torch.stack(terms).sum()
            if flow.requires_grad:
                products = torch.autograd.grad(flow, weights, allow_unused=True)
                total -= sum(
                    float((weight.detach() * product).sum(dtype=torch.float64))
                    for weight, product in zip(weights, products, strict=True)
                    if product is not None
                )
    return total
