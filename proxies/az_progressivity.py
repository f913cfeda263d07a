"""az-progressivity: whether every layer adds to what its input could express."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from proxies.batch import ProbeBatch
from proxies.registry import proxy
from proxies.spectrum import expressivities


@proxy(
    name="az-progressivity",
    paper="Lee & Ham, AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search, CVPR 2024 (arXiv "
    "2403.19232), eq. 3",
    equation="min over layers l >= 2 of s_l - s_(l-1), s as in az-expressivity",
    needs=frozenset({"data"}),
    families="models with a stack of layers",
)
def az_progressivity(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """0 for a single layer, which has nothing to be compared with."""
    found = expressivities(model, batch, splits, "az-progressivity")
    return min((after - before for before, after in pairwise(found)), default=0.0)
