"""az-expressivity: how evenly each layer spreads its features. One of four parts; the fourth, complexity, is flops."""

from __future__ import annotations

from torch import nn

from proxies.batch import ProbeBatch
from proxies.registry import proxy
from proxies.spectrum import expressivities


@proxy(
    name="az-expressivity",
    paper="Lee & Ham, AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search, CVPR 2024 (arXiv "
    "2403.19232), eq. 1 and 2",
    equation="sum over layers of the entropy -sum_i p_i log p_i, p_i = share of principal component i in the "
    "variance of the features",
    needs=frozenset({"data"}),
    families="models with a stack of layers",
)
def az_expressivity(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Features are the hidden states at every position; layers are the decoder layers."""
    return sum(expressivities(model, batch, splits, "az-expressivity"))
