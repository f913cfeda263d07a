"""The front is the set that nothing dominates."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nas.pareto import dominates, front, spread

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=25)


@given(POINTS)
def test_front_is_exactly_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    kept = set(front(points))
    for index, point in enumerate(points):
        assert (index in kept) == (not any(dominates(other, point) for other in points))


@given(POINTS)
def test_front_ignores_order(points: list[tuple[int, int]]) -> None:
    turned = points[::-1]
    assert sorted(points[i] for i in front(points)) == sorted(turned[i] for i in front(turned))


@given(st.integers(0, 9), st.integers(0, 9))
def test_spread_is_distinct_and_keeps_both_ends(count: int, size: int) -> None:
    chosen = spread(count, list(range(size)))
    assert len(chosen) == len(set(chosen)) == min(count, size)
    if min(count, size) >= 2:
        assert chosen[0] == 0
        assert chosen[-1] == size - 1
