"""gradsign: for how many weights the samples agree on the direction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from proxies.batch import ProbeBatch
from proxies.gradients import sample_gradients
from proxies.registry import proxy


@proxy(
    name="gradsign",
    paper="Zhang & Jia, GradSign: Model Performance Inference with Theoretical Insights, ICLR 2022 (arXiv 2110.08616), "
    "algorithm 1",
    equation="sum over trainable weights of |sum over samples of sign(dL_i/dw)|",
    needs=frozenset({"grad", "labels", "data"}),
)
def gradsign(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Grows with the number of weights; the paper compares networks of one size."""
    total: list[Tensor] = []
    for grads in sample_gradients(model, batch, "gradsign"):
        signs = [grad.sign() for grad in grads]
        total = [a + b for a, b in zip(total, signs, strict=True)] if total else signs
    return sum(float(signs.abs().sum(dtype=torch.float64)) for signs in total)
