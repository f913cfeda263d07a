"""gradsign: for how many weights the samples agree on the direction."""

from __future__ import annotations

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.gradients import sample_statistics
from proxies.registry import proxy


@proxy(
    name="gradsign",
    paper="Zhang & Jia, GradSign: Model Performance Inference with Theoretical Insights, ICLR 2022 (arXiv 2110.08616), "
    "algorithm 1",
    equation="sum over trainable weights of |sum over samples of sign(dL_i/dw)|",
    needs=frozenset({"grad", "samples", "labels", "data"}),
)
def gradsign(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Grows with the number of weights; the paper compares networks of one size."""
    found = sample_statistics(model, batch, "gradsign")
    return sum(float(one.signs.abs().sum(dtype=torch.float64)) for one in found)
