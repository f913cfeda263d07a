"""Exact: every candidate that can be enumerated, weighed by composed latency and predicted quality. Nothing is built.

Where all candidates are weighed, the front under any constraints is known exactly, as far as latency and quality are;
the intervals of both say how far that is, and by Monte Carlo how surely each candidate is on the front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nas.constraints import LATENCY_METRICS
from nas.cost_rows import Matrix
from nas.errors import NotMeasuredError
from nas.pareto import front_mask
from nas.records import Latency, Quality
from nas.search.gate import fits_memory
from nas.search.problem import Problem
from search_spaces import Candidate

DRAWS = 400
Z80 = 1.2816  # half-width of an 80 % interval, in standard deviations
ON_IT, PROBABLY = 0.9, 0.5


@dataclass(frozen=True)
class Weighed:
    """Candidates with their objectives as columns to maximise, and the standard deviations of those."""

    candidates: tuple[Candidate, ...]
    gains: Matrix
    deviations: Matrix

    @cached_property
    def front(self) -> list[int]:
        """Places of the non-dominated, best first objective first."""
        places = np.flatnonzero(front_mask(self.gains))
        return [int(place) for place in sorted(places, key=lambda place: tuple(-self.gains[place]))]

    @cached_property
    def confidence(self) -> Matrix:
        """(candidates): how often each is on the front when all are drawn from their intervals, independently."""
        return confidence(self.gains, self.deviations)

    def promising(self, count: int) -> list[Candidate]:
        """The front, then what may be on it, likeliest first."""
        rest = np.argsort(-self.confidence, kind="stable")
        places = dict.fromkeys([*self.front, *(int(place) for place in rest)])
        return [self.candidates[place] for place in list(places)[:count]]


def confidence(gains: Matrix, deviations: Matrix) -> Matrix:
    """(n): how often each of the rows (n, objectives), drawn independently, is on the front of all of them."""
    generator = np.random.default_rng(0)
    counts = np.zeros(len(gains))
    for _ in range(DRAWS):
        counts += front_mask(gains + deviations * generator.standard_normal(gains.shape))
    result: Matrix = counts / DRAWS
    return result


def weigh(problem: Problem, candidates: Sequence[Candidate]) -> Weighed:
    """All of them that keep the constraints and whose latency is known."""
    kept: list[Candidate] = []
    gains, deviations = [], []
    for candidate in candidates:
        try:
            metrics = problem.metrics(candidate)
        except NotMeasuredError:
            continue
        if fits_memory(problem, candidate) and not problem.breaks(problem.violations(metrics)):
            kept.append(candidate)
            gains.append(problem.maximised(metrics))
            deviations.append(spreads(problem.objectives, problem.quality(candidate), problem.latency(candidate)))
    shape = (len(kept), len(problem.objectives))
    return Weighed(tuple(kept), np.array(gains).reshape(shape), np.array(deviations).reshape(shape))


def spreads(objectives: Sequence[str], quality: Quality, latency: Mapping[str, Latency]) -> list[float]:
    """Standard deviation of each objective, from 80 % intervals; counts and closed forms have none."""
    found = []
    for objective in objectives:
        name, _, device = objective.partition("@")
        if name == "quality":
            found.append((quality.high - quality.low) / (2 * Z80))
        elif name in LATENCY_METRICS:
            one = latency[device or next(iter(latency))]
            found.append((one.high_ms - one.low_ms) / (2 * Z80) * getattr(one, name) / one.latency_ms)
        else:
            found.append(0.0)
    return found


def in_words(share: float) -> str:
    """What a confidence says of a candidate on the front."""
    if share >= ON_IT:
        return "on the front"
    return "probably on the front" if share >= PROBABLY else "not told apart from neighbours"
