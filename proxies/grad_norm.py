"""grad-norm: how long the gradients are."""

from __future__ import annotations

from torch import nn

from proxies.batch import ProbeBatch
from proxies.gradients import loss_gradients
from proxies.registry import proxy


@proxy(
    name="grad-norm",
    paper="Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021 (arXiv 2101.08134), section 3.1",
    equation="sum over weight tensors of the Euclidean norm of dL/dW",
    needs=frozenset({"grad", "labels", "data"}),
)
def grad_norm(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """L is the mean loss of the batch's labels."""
    return sum(float(grad.norm()) for _, grad in loss_gradients(model, batch, splits, "grad-norm"))
