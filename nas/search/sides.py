"""The exact front of a space that is too large to weigh one by one: a dynamic programme over the two sides of a design.

A design is a seeing side (encoder, views, projector, compression, for one decoder) and a language side (its depth,
precision, ...). They meet in the decoder, the number of visual tokens and how many of them the decoder drops. Given
these, latency, parameters and bytes are sums over the sides, activations the larger of the two, and the prior's
quality is u(b) + s(a) - n(b) t(a): a line in n for a seeing side a, so that one that is beaten at the least and at the
largest n is beaten with every language side (and the other way round). Sides that are beaten are left out, and those
that even the best partner leaves behind a design that is known already (branch and bound); of the others every pair is
weighed. Nothing is fitted or sampled. Of designs that are alike in every objective one may stand for all. It does not
hold for a score that is fitted on anchors, which knows no such form.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nas.constraints import LATENCY_METRICS
from nas.cost_rows import Matrix
from nas.pareto import beaten, front_mask
from nas.quality.prior_columns import inside_columns
from nas.records import DTYPE_BYTES, GIB
from nas.search.exact import weigh
from nas.search.problem import Problem, is_measurable
from nas.search.side_tables import Side, SideTables
from search_spaces import Candidate
from search_spaces.catalogue import SpaceError

POOL = 20_000  # designs that are held before the beaten ones among them are left out
PAIRS_AT_ONCE = 200_000
MOST_S = 60.0


class Solved(NamedTuple):
    """The exact front under the problem's constraints, or why there is none."""

    front: list[Candidate] | None
    why_not: str = ""


def front_of_sides(problem: Problem, most_s: float = MOST_S, clock: Callable[[], float] = time.monotonic) -> Solved:
    """Given up after `most_s` seconds, or where even the sides are too many to hold."""
    why_not = _obstacle(problem)
    if why_not:
        return Solved(None, why_not)
    deadline, join = clock() + most_s, Join(problem)
    try:
        tables = SideTables(problem)
        for seeing, language in tables.groups():
            if clock() > deadline:
                return Solved(None, f"it would take more than {most_s:.0f} s")
            join.add(seeing, language, tables)
    except SpaceError as error:
        return Solved(None, str(error))
    weighed = weigh(problem, tables.made(join.front()))
    return Solved([weighed.candidates[place] for place in weighed.front])


def _obstacle(problem: Problem) -> str:
    """Why the form above is not that of the problem; empty where it is."""
    metrics = {name.partition("@")[0] for name in problem.objectives} | {one.metric for one in problem.constraints}
    other = sorted(metrics - {"quality", "memory_gib", "params", *LATENCY_METRICS})
    least = [one.text for one in problem.constraints if not one.soft and one.upper == (one.metric == "quality")]
    if any(map(is_measurable, problem.profiles.values())):
        return "on a measured device it would need the blocks of every design"
    if problem.config.anchors:
        return "a score that is fitted on anchors is no sum of two sides"
    if problem.benchmark is not None:
        return "what the shipped benchmark says of quality is no sum of two sides"
    if problem.config.runtime != "torch-eager":
        return f"runtime {problem.config.runtime} does not run every design"
    if other or least:
        return f"{(other + least)[0]!r} is no bound on a sum of two sides"
    return ""


class Join:
    """The designs that nothing beats, of the pairs of sides that were added."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        asked = {name.partition("@")[0] for name in problem.objectives} | {one.metric for one in problem.constraints}
        self.latencies = [f"{name}@{device}" for name in LATENCY_METRICS if name in asked for device in problem.devices]
        self._codes: list[Any] = []
        self._gains: list[Matrix] = []
        self._known = np.zeros((0, len(problem.objectives)))  # a front that any design has to match

    def front(self) -> Any:
        """(designs, axes): the places of their values."""
        self._tidy()
        return self._codes[0] if self._codes else np.zeros((0, len(self.problem.space.domains)), dtype=np.int16)

    def add(self, seeing: Side, language: Side, tables: SideTables) -> None:
        """Every pair of them that is not beaten."""
        if self._is_beaten(seeing.bound(best=True), language.bound(best=True))[0]:
            return
        a = seeing.only(~self._is_beaten(seeing, language.bound(best=True)))
        b = language.only(~self._is_beaten(a.bound(best=True), language)) if len(a) else language
        if not len(a) or not len(b):
            return
        costs = self._costs(a, b)
        a = a.only(_unbeaten(a, b, costs))
        b = b.only(_unbeaten(b, a, costs))
        at_once = max(1, PAIRS_AT_ONCE // len(b))
        for start in range(0, len(a), at_once):
            some = a.only(slice(start, start + at_once))
            metrics = self._metrics(some, b)
            kept = np.flatnonzero(self._allowed(metrics))
            gains = self._gained(metrics, len(some) * len(b))[kept]
            ahead = ~beaten(gains, self._known)
            kept, gains = kept[ahead], gains[ahead]
            front = front_mask(gains)
            first, second = np.divmod(kept[front], len(b))
            self._codes.append(tables.joined(some.codes[first], b.codes[second]))
            self._gains.append(gains[front])
            if sum(map(len, self._gains)) > POOL or not len(self._known):
                self._tidy()

    def _tidy(self) -> None:
        if self._gains:
            codes, gains = np.vstack(self._codes), np.vstack(self._gains)
            left = front_mask(gains)
            self._codes, self._gains = [codes[left]], [gains[left]]
            self._known = gains[left]

    def _is_beaten(self, a: Side, b: Side) -> Any:
        """Which pairs a known design beats, or a constraint rules out; of one side there is one row, its best."""
        metrics = self._metrics(a, b)
        count = len(a) * len(b)
        return ~np.broadcast_to(self._allowed(metrics), count) | beaten(self._gained(metrics, count), self._known)

    def _costs(self, a: Side, b: Side) -> set[str]:
        """What tells pairs of these sides apart: objectives, and what a constraint allows of some of them only."""
        problem = self.problem
        names = set(problem.objectives)
        worst = self._metrics(a.bound(best=False), b.bound(best=False))
        missed = problem.violations({name: column[0] for name, column in worst.items()})
        names |= {one.metric for one in problem.constraints if not one.soft and missed[one.text] > 0}
        if not all(one.has_room(float(worst["memory_gib"][0])) for one in problem.profiles.values()):
            names.add("memory_gib")
        return {name.partition("@")[0] for name in names}

    def _metrics(self, a: Side, b: Side) -> dict[str, Any]:
        """Every asked metric of every pair, in the order (a, b)."""

        def summed(one: Any, other: Any) -> Any:
            return (one[:, None] + other[None]).ravel()

        quality = summed(a.level, b.level) - (a.slope[:, None] * b.slope[None]).ravel()
        activation = np.maximum(a.activation[:, None], b.activation[None]).ravel()
        found: dict[str, Any] = {"quality": inside_columns(quality), "params": summed(a.params, b.params)}
        found["memory_gib"] = (summed(a.params * DTYPE_BYTES, b.bytes) + activation) / GIB
        return found | {of: summed(a.latency[of], b.latency[of]) for of in self.latencies}

    def _gained(self, metrics: dict[str, Any], count: int) -> Matrix:
        """(pairs, objectives) to maximise."""
        columns: Any = self.problem.maximised(metrics)
        return np.array([np.broadcast_to(one, count) for one in columns]).T

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


def _unbeaten(side: Side, other: Side, costs: set[str]) -> Any:
    """Rows that no other beats in all that it adds, at both ends of the slopes of the other side; of equal ones one."""
    columns: list[Any] = [side.level - end * side.slope for end in {other.slope.min(), other.slope.max()}]
    columns += [-column for of, column in side.latency.items() if of.partition("@")[0] in costs]
    if costs & {"params", "memory_gib"}:
        columns.append(-side.params)
    if "memory_gib" in costs:
        columns += [-side.bytes, -side.activation]
    points, first = np.unique(np.array(columns).T, axis=0, return_index=True)
    return first[front_mask(points)]
