"""The exact front of a space that is too large to weigh one by one: a dynamic programme over the two sides of a design.

A design is a seeing side (encoder, views, projector, compression, for one decoder) and a language side (its depth,
precision, ...). They meet in the decoder, the number of visual tokens and how many of them the decoder drops. Given
these, latency, parameters and bytes are sums over the sides, activations the larger of the two, and the prior's
quality is u(b) + s(a) - n(b) t(a): a line in n for a seeing side a, so that one that is beaten at the least and at the
largest n is beaten with every language side (and the other way round). Sides that are beaten are left out, of the
others every pair is weighed. Nothing is fitted or sampled. Of designs that are alike in every objective one may stand
for all. It does not hold for a score that is fitted on anchors, which knows no such form.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from nas.constraints import LATENCY_METRICS
from nas.pareto import front_mask
from nas.quality.prior_columns import inside_columns
from nas.records import DTYPE_BYTES, GIB
from nas.search.exact import weigh
from nas.search.problem import Problem, is_measurable
from nas.search.side_tables import Matrix, Side, SideTables
from search_spaces import Candidate
from search_spaces.catalogue import SpaceError

POOL = 20_000  # pairs that are held before the beaten ones among them are left out


def applies(problem: Problem) -> bool:
    """Whether the form above is that of the problem."""
    metrics = {name.partition("@")[0] for name in problem.objectives} | {one.metric for one in problem.constraints}
    return (
        not any(map(is_measurable, problem.profiles.values()))
        and not problem.config.anchors
        and metrics <= {"quality", "memory_gib", "params", *LATENCY_METRICS}
        and all(one.upper != (one.metric == "quality") for one in problem.constraints if not one.soft)
    )


def front_of_sides(problem: Problem) -> list[Candidate] | None:
    """The exact front under the problem's constraints; None where even the sides are too many to hold."""
    try:
        tables = SideTables(problem)
    except SpaceError:
        return None
    join = Join(problem, tables)
    places, gains = np.zeros((0, 2), dtype=np.int64), np.zeros((0, len(problem.objectives)))
    for pairs, reached in join.groups():
        places, gains = np.vstack([places, pairs]), np.vstack([gains, reached])
        if len(places) > POOL:
            left = front_mask(gains)
            places, gains = places[left], gains[left]
    weighed = weigh(problem, tables.made(places[front_mask(gains)]))
    return [weighed.candidates[place] for place in weighed.front]


class Ends(NamedTuple):
    """The least and the largest slope that the other side of a group has."""

    low: float
    high: float


class Join:
    """Pairs of sides, group by group."""

    def __init__(self, problem: Problem, tables: SideTables) -> None:
        self.problem, self.tables = problem, tables
        asked = {name.partition("@")[0] for name in problem.objectives} | {one.metric for one in problem.constraints}
        self.latencies = [name for name in LATENCY_METRICS if name in asked]
        self.counts_params = "params" in asked
        most = tables.largest_memory_gib
        self.counts_memory = "memory_gib" in asked or not all(one.has_room(most) for one in problem.profiles.values())

    def groups(self) -> Iterator[tuple[Any, Matrix]]:
        """((pairs, 2) rows of both tables, (pairs, objectives) what they reach), of the front of each group."""
        for seeing, language in self.tables.groups():
            a = seeing.only(self._unbeaten(seeing, Ends(language.slope.min(), language.slope.max())))
            b = language.only(self._unbeaten(language, Ends(a.slope.min(), a.slope.max())))
            metrics = self._metrics(a, b)
            kept = np.flatnonzero(self._allowed(metrics))
            if not len(kept):
                continue
            maximised: Any = self.problem.maximised(metrics)
            gains = np.array([np.broadcast_to(one, len(a.place) * len(b.place))[kept] for one in maximised]).T
            front = front_mask(gains)
            first, second = np.divmod(kept[front], len(b.place))
            yield np.column_stack([a.place[first], b.place[second]]), gains[front]

    def _unbeaten(self, side: Side, ends: Ends) -> Any:
        """Rows that no other beats in all that it adds, at both ends."""
        columns: list[Any] = [side.level - end * side.slope for end in ends]
        for name in self.latencies:
            columns += [-side.latency[f"{name}@{device}"] for device in self.problem.devices]
        if self.counts_params or self.counts_memory:
            columns.append(-side.params)
        if self.counts_memory:
            columns += [-side.bytes, -side.activation]
        return front_mask(np.array(columns).T)

    def _metrics(self, a: Side, b: Side) -> dict[str, Any]:
        """Every asked metric of every pair, in the order (a, b)."""

        def summed(one: Any, other: Any) -> Any:
            return (one[:, None] + other[None]).ravel()

        quality = summed(a.level, b.level) - (a.slope[:, None] * b.slope[None]).ravel()
        activation = np.maximum(a.activation[:, None], b.activation[None]).ravel()
        found: dict[str, Any] = {"quality": inside_columns(quality), "params": summed(a.params, b.params)}
        found["memory_gib"] = (summed(a.params * DTYPE_BYTES, b.bytes) + activation) / GIB
        for name in self.latencies:
            for device in self.problem.devices:
                of = f"{name}@{device}"
                found[of] = summed(a.latency[of], b.latency[of])
        return found

    def _allowed(self, metrics: dict[str, Any]) -> Any:
        problem = self.problem
        kept = np.ones(len(metrics["quality"]), dtype=bool)
        for profile in problem.profiles.values():
            usable = profile.memory.usable_gib.value
            kept &= True if usable is None else metrics["memory_gib"] <= usable
        missed: dict[str, Any] = problem.violations(metrics)
        for one in problem.constraints:
            if not one.soft:
                kept &= missed[one.text] <= 0
        return kept
