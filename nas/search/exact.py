"""Exact: every candidate that can be enumerated, weighed by composed latency and predicted quality. Nothing is built.

Where all candidates are weighed, the front under any constraints is known exactly, as far as latency and quality are;
the intervals of both say how far that is, and by Monte Carlo how surely each candidate is on the front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nas.cost_rows import Matrix
from nas.errors import NotMeasuredError
from nas.pareto import front_mask
from nas.search.confidence import PHASES, confidence, errors, in_logs
from nas.search.gate import fits_memory
from nas.search.problem import Problem
from search_spaces import Candidate


@dataclass(frozen=True)
class Weighed:
    """Candidates with their objectives as columns to maximise, latencies as logarithms, and the errors of those."""

    candidates: tuple[Candidate, ...]
    gains: Matrix
    errors: Matrix

    @cached_property
    def front(self) -> list[int]:
        """Places of the non-dominated, best first objective first."""
        places = np.flatnonzero(front_mask(self.gains))
        return [int(place) for place in sorted(places, key=lambda place: tuple(-self.gains[place]))]

    @cached_property
    def confidence(self) -> Matrix:
        """(candidates): how often each is on the front when all are drawn from their intervals."""
        return confidence(self.gains, self.errors)

    def promising(self, count: int) -> list[Candidate]:
        """The front, then what may be on it, likeliest first."""
        rest = np.argsort(-self.confidence, kind="stable")
        places = dict.fromkeys([*self.front, *(int(place) for place in rest)])
        return [self.candidates[place] for place in list(places)[:count]]


def weigh(problem: Problem, candidates: Sequence[Candidate]) -> Weighed:
    """All of them that keep the constraints and whose latency is known."""
    kept: list[Candidate] = []
    gains, doubts = [], []
    for candidate in candidates:
        try:
            metrics = problem.metrics(candidate)
        except NotMeasuredError:
            continue
        if fits_memory(problem, candidate) and not problem.breaks(problem.violations(metrics)):
            kept.append(candidate)
            gains.append(problem.maximised(metrics))
            doubts.append(errors(problem.objectives, problem.quality(candidate), problem.latency(candidate)))
    columns = in_logs(problem.objectives, gains)
    return Weighed(tuple(kept), columns, np.array(doubts).reshape((*columns.shape, 1 + PHASES)))
