"""gromov-wasserstein: how far the geometry of images is from that of their texts."""

from __future__ import annotations

from torch import nn

from proxies.batch import ProbeBatch
from proxies.pairs import distances, pairs
from proxies.registry import proxy


@proxy(
    name="gromov-wasserstein",
    paper="Memoli, Gromov-Wasserstein Distances and the Metric Approach to Object Matching, 2011, definition "
    "5.7; computed with POT (Flamary et al., JMLR 2021)",
    equation="min over couplings p of sum |d_image(i, j) - d_text(k, l)|^2 p_ik p_jl, distances over their largest",
    higher_is_better=False,
    needs=frozenset({"data", "weights"}),
    families="multimodal models whose encoder hands out its tokens",
)
def gromov_wasserstein(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """A local minimum from the independent coupling. Needs tens of real pairs to say anything."""
    from ot.gromov import gromov_wasserstein2  # its import takes a second

    images, texts = (distances(rows).numpy() for rows in pairs(model, batch, splits))
    return float(gromov_wasserstein2(images, texts, loss_fun="square_loss"))
