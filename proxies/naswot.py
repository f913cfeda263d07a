"""naswot: how differently the samples of a batch switch the model's activations."""

from __future__ import annotations

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.one_pass import activations
from proxies.registry import ProxyError, proxy


@proxy(
    name="naswot",
    paper="Mellor et al., Neural Architecture Search without Training, ICML 2021 (arXiv 2006.04647)",
    equation="log |det K|, K_ij = number of units on which samples i and j agree (eq. 2); a unit of a GELU or SiLU "
    "counts as on where its input is positive",
    needs=frozenset({"data"}),
    families="networks with activations between their layers",
)
def naswot(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Units are those that run on this batch, at every position; needs samples that differ."""
    kernel = torch.zeros(len(batch), len(batch), dtype=torch.float64)
    for codes in activations(model, batch, splits, "naswot").codes:
        signs = codes.float().mul_(2).sub_(1)  # agreement = (units + s_i . s_j) / 2, exact in fp32
        kernel += (signs.shape[1] + (signs @ signs.T).double()) / 2
    if torch.linalg.matrix_rank(kernel, hermitian=True) < len(batch):  # a determinant of rounding errors has any sign
        raise ProxyError("naswot needs samples that differ, but the codes of the batch depend on each other")
    return float(torch.linalg.slogdet(kernel).logabsdet)
