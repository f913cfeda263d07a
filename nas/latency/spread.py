"""Points far apart: the few that are measured so that the rest can be told from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def farthest(
    points: ArrayLike, count: int, *, largest_first: bool = True, groups: ArrayLike | None = None
) -> list[int]:
    """Indices of `count` of the points (n, k): an extreme one, then always the one farthest from those chosen.

    Columns are brought to one scale. With `groups` (n), no group is taken twice before each was taken once.
    """
    scaled: NDArray[np.float64] = np.asarray(points, dtype=float)
    deviation = scaled.std(axis=0)
    scaled = (scaled - scaled.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    sums = scaled.sum(axis=1)
    chosen = [int(sums.argmax() if largest_first else sums.argmin())]
    distance = np.linalg.norm(scaled - scaled[chosen[0]], axis=1)
    kinds = None if groups is None else np.asarray(groups)
    while len(chosen) < min(count, len(scaled)):
        fresh = np.zeros(len(scaled), dtype=bool) if kinds is None else ~np.isin(kinds, kinds[chosen])
        chosen.append(int(np.where(fresh, distance, -1.0).argmax() if fresh.any() else distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
    return chosen
