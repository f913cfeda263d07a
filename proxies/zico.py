"""zico: large gradients that agree from sample to sample."""

from __future__ import annotations

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.gradients import sample_statistics
from proxies.registry import proxy


@proxy(
    name="zico",
    paper="Li et al., ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients, ICLR 2023 "
    "(arXiv 2301.11300), eq. 14",
    equation="sum over weight tensors of log(sum over weights of mean_i |g_i| / std_i |g_i|); weights whose gradient "
    "does not vary are left out, as in the paper's code",
    needs=frozenset({"grad", "samples", "labels", "data"}),
)
def zico(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Each sample stands for one of the paper's batches; 0 for a single sample, which cannot vary."""
    score = 0.0
    for found in sample_statistics(model, batch, "zico"):
        varies = found.variance > 1e-12 * found.mean.square()
        if varies.any():
            score += float(torch.log((found.mean[varies] / found.variance[varies].sqrt()).sum(dtype=torch.float64)))
    return score
