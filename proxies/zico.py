"""zico: large gradients that agree from sample to sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from proxies.batch import ProbeBatch
from proxies.gradients import sample_gradients
from proxies.registry import proxy


@proxy(
    name="zico",
    paper="Li et al., ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients, ICLR 2023 "
    "(arXiv 2301.11300), eq. 14",
    equation="sum over weight tensors of log(sum over weights of mean_i |g_i| / std_i |g_i|); weights whose gradient "
    "does not vary are left out, as in the paper's code",
    needs=frozenset({"grad", "labels", "data"}),
)
def zico(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Each sample stands for one of the paper's batches; 0 for a single sample, which cannot vary."""
    sums: list[Tensor] = []
    squares: list[Tensor] = []
    count = 0
    for grads in sample_gradients(model, batch, "zico"):
        sizes = [grad.abs().double() for grad in grads]
        sums = [s + size for s, size in zip(sums, sizes, strict=True)] if sums else sizes
        squared = [size.square() for size in sizes]
        squares = [s + size for s, size in zip(squares, squared, strict=True)] if squares else squared
        count += 1
    score = 0.0
    for total, square in zip(sums, squares, strict=True):
        mean = total / count
        variance = square / count - mean.square()
        varies = variance > 1e-12 * mean.square()
        if varies.any():
            score += float(torch.log((mean[varies] / variance[varies].sqrt()).sum()))
    return score
