"""Non-dominated sets. Objectives are given as columns to maximise (negate those to minimise)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """At least as good everywhere and better somewhere."""
    return all(a >= b for a, b in zip(first, second, strict=True)) and tuple(first) != tuple(second)


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the non-dominated points, best first coordinate first; equal points all stay."""
    order = sorted(range(len(points)), key=lambda index: tuple(points[index]), reverse=True)
    kept: list[int] = []
    for index in order:
        if not any(dominates(points[other], points[index]) for other in kept):
            kept.append(index)
    return kept


def front_mask(points: Points) -> Mask:
    """(n): which of the points (n, k) nothing dominates; the same set as `front`, for many points."""
    return ~beaten(points, points)


def beaten(points: Points, by: Points) -> Mask:
    """(n): which of the points (n, k) one of the others (m, k) dominates."""
    mask = np.zeros(len(points), dtype=bool)
    if not len(by):
        return mask
    if points.shape[1] == 2:  # by the best second value of those whose first is as large, or larger
        order = np.argsort(by[:, 0])
        firsts = by[order, 0]
        best = np.append(np.maximum.accumulate(by[order[::-1], 1])[::-1], -np.inf)
        as_large = best[np.searchsorted(firsts, points[:, 0], side="left")]
        after = np.searchsorted(firsts, points[:, 0], side="right")
        found: Mask = (as_large > points[:, 1]) | ((best[after] >= points[:, 1]) & (after < len(by)))
        return found
    rest = np.arange(len(points))
    by = by[np.argsort(-by.sum(axis=1), kind="stable")]  # those that beat many come first
    while len(by):
        some, first = points[rest], by[0]
        out = (first >= some).all(axis=1) & (first > some).any(axis=1)
        mask[rest[out]] = True
        rest = rest[~out]
        by = by[(by > first).any(axis=1)]  # what it beats or equals, and itself, beats nothing more
    return mask


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Volume that the points dominate above `reference`, by slicing along the last coordinate."""
    inside = [tuple(point) for point in points if all(x > low for x, low in zip(point, reference, strict=True))]
    if not inside:
        return 0.0
    if len(reference) == 1:
        return max(point[0] for point in inside) - reference[0]
    on_front = front_mask(np.array(inside))
    inside = [point for point, kept in zip(inside, on_front, strict=True) if kept]
    inside.sort(key=lambda point: point[-1], reverse=True)
    volume = 0.0
    for count, point in enumerate(inside, 1):
        below = inside[count][-1] if count < len(inside) else reference[-1]
        if point[-1] > below:
            volume += (point[-1] - below) * hypervolume([one[:-1] for one in inside[:count]], reference[:-1])
    return volume


def spread(count: int, among: Sequence[int]) -> list[int]:
    """`count` of an ordered front, evenly spaced, both ends first among them."""
    if count <= 0 or not among:
        return []
    if count >= len(among):
        return list(among)
    if count == 1:
        return [among[0]]
    return [among[round(place * (len(among) - 1) / (count - 1))] for place in range(count)]
