"""rank-budget: how many directions the matrices of the decoder can carry."""

from __future__ import annotations

from torch import nn

from proxies.anatomy import body_matrices
from proxies.batch import ProbeBatch
from proxies.registry import proxy


@proxy(
    name="rank-budget",
    paper="counted; this project's measure of how evenly a body of one size is spread over its matrices",
    equation="sum over the weight matrices of the decoder layers of min(d_in, d_out)",
    families="models with a stack of layers",
    reads_decoder=False,
)
def rank_budget(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """The batch plays no part."""
    return float(sum(min(weight.shape) for weight in body_matrices(model)))
