"""Points far apart, or typical of all: the few that are measured so that the rest can be told from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

LLOYD_STEPS = 30
NEARLY = 0.75


def farthest(points: ArrayLike, count: int) -> list[int]:
    """Indices of `count` of the points (n, k): the largest, then always the one farthest from those chosen.

    Columns are brought to one scale.
    """
    scaled = _scaled(points)
    chosen = [int(scaled.sum(axis=1).argmax())]
    distance = np.linalg.norm(scaled - scaled[chosen[0]], axis=1)
    while len(chosen) < min(count, len(scaled)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
    return chosen


def apart_in_each(points: ArrayLike, kinds: ArrayLike, count: int) -> list[int]:
    """Indices of `count` of the points (n, k): the smallest, then always one far from those chosen, of kinds (n, j)
    that they have least of.

    Two points are as far apart as in the column in which they are nearest, so that every column can rank them. Far: at
    least NEARLY of the farthest; where none is left that differs in all columns, any other comes.
    """
    raw, labels = np.asarray(points, dtype=float), np.asarray(kinds)
    chosen = [int(raw.sum(axis=1).argmin())]
    distance, taken = np.full(len(raw), np.inf), np.zeros(len(raw))
    while len(chosen) < min(count, len(raw)):
        distance = np.minimum(distance, np.abs(raw - raw[chosen[-1]]).min(axis=1))
        distance[chosen] = -1.0
        taken += (labels == labels[chosen[-1]]).sum(axis=1)
        far = np.flatnonzero(distance >= NEARLY * distance.max())
        chosen.append(int(min(far, key=lambda index: (taken[index], -distance[index]))))
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
