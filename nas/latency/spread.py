"""Points far apart, or typical of all: the few that are measured so that the rest can be told from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

LLOYD_STEPS = 30


def farthest(
    points: ArrayLike, count: int, *, largest_first: bool = True, groups: ArrayLike | None = None
) -> list[int]:
    """Indices of `count` of the points (n, k): an extreme one, then always the one farthest from those chosen.

    Columns are brought to one scale. With `groups` (n), no group is taken twice before each was taken once.
    """
    scaled = _scaled(points)
    sums = scaled.sum(axis=1)
    chosen = [int(sums.argmax() if largest_first else sums.argmin())]
    distance = np.linalg.norm(scaled - scaled[chosen[0]], axis=1)
    kinds = None if groups is None else np.asarray(groups)
    while len(chosen) < min(count, len(scaled)):
        fresh = np.zeros(len(scaled), dtype=bool) if kinds is None else ~np.isin(kinds, kinds[chosen])
        chosen.append(int(np.where(fresh, distance, -1.0).argmax() if fresh.any() else distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
    return chosen


def representative(points: ArrayLike, count: int) -> list[int]:
    """Indices of `count` of the points (n, k): both ends, and the one nearest to the middle of each of the clusters.

    Points that are all far apart are the odd ones, and a model fitted to them speaks of odd ones. Clusters: Lloyd's
    iteration from points far apart, in columns brought to one scale; no draw is involved.
    """
    scaled = _scaled(points)
    sums, count = scaled.sum(axis=1), min(count, len(scaled))
    chosen = list(dict.fromkeys([int(sums.argmin()), int(sums.argmax())]))[:count]
    if len(chosen) == count:
        return chosen
    middles = scaled[farthest(points, count - len(chosen))]
    for _ in range(LLOYD_STEPS):
        nearest = _distances(scaled, middles).argmin(axis=1)
        moved = [scaled[nearest == i].mean(axis=0) if (nearest == i).any() else old for i, old in enumerate(middles)]
        if np.allclose(moved, middles):
            break
        middles = np.array(moved)
    for order in np.argsort(_distances(scaled, middles), axis=0).T.tolist():
        chosen.append(next(index for index in order if index not in chosen))
    return chosen


def _scaled(points: ArrayLike) -> NDArray[np.float64]:
    raw: NDArray[np.float64] = np.asarray(points, dtype=float)
    deviation = raw.std(axis=0)
    scaled: NDArray[np.float64] = (raw - raw.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return scaled


def _distances(points: NDArray[np.float64], middles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared, (points, middles)."""
    found: NDArray[np.float64] = ((points[:, None] - middles[None]) ** 2).sum(axis=-1)
    return found
