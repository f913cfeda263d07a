"""SynFlow in logarithms: the flow of synaptic strength through the weight matrices, without data."""

from __future__ import annotations

import math

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.registry import proxy


@proxy(
    paper="Tanaka et al. 2020, arXiv 2006.05467; logarithms: Cavagnero et al. 2023, arXiv 2207.09868",
    equation="eq. 3: R = 1^T prod |W_l| 1, per layer, as a sum of log flows",
)
def synflow(model: nn.Module, batch: ProbeBatch) -> float:
    """Sum over linear layers of log(1 + 1^T |W| 1 / d_in), in float64.

    Differs from the paper: softmax, norms and gates make the product of a deep transformer meaningless, so each
    matrix is fed the all-ones vector on its own (norms reset the scale between layers) and the log flows are added.
    """
    total = 0.0
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                flow = float(module.weight.abs().sum(dtype=torch.float64)) / module.in_features
                total += math.log1p(flow)
    return total
