"""Funnel: spends expensive evaluations near the predicted front. Costs are known for every design, quality is not.

Spread anchors come first. A Gaussian process fitted on all that is evaluated then says of every other design what an
evaluation would find, and the next one is where the expected gain in hypervolume is greatest. With known costs c the
expectation has a closed form (expected improvement, Jones et al. 1998, over all costs, cf. Emmerich et al. 2006):

    gain(x) = integral over t >= c(x) of E[max(0, q(x) - best(t))] dt,   best(t) = best quality evaluated within cost t

taken as the mean over LIMITS cost limits t that are spread over the box of all costs, and over as many more at its far
corner as are asked for: with all that is allowed spent, quality counts for itself. Every second evaluation takes the
deviations DOUBT times as large: a model of a few dozen trainings is wrong in ways that its own interval does not know,
and the gain of a design that it misjudges is found in no other way. DOUBT was chosen on the first micro-VLM table.

Dozens of evaluations tell more than the dozen anchors that a score is fitted on: what close neighbours have in common.
KERNELS have shorter lengths and less noise for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Generic

import numpy as np
from scipy.special import ndtr

from nas.config import FEWEST_ANCHORS
from nas.cost_rows import Matrix
from nas.quality.gaussian import LINEAR, GaussianProcess, Kernel
from nas.quality.structure import spread
from nas.search.problem import Problem
from nas.search.proposer import Drawn
from search_spaces import Candidate

ANCHORS = 8
MOST_COMPARED = 2048  # of more designs than these, so many are drawn anew for each proposal
LIMITS = 256
DOUBT = 4.0
KERNELS = tuple(
    Kernel(*values) for values in product(LINEAR, (0.1, 0.3, 1.0, 3.0), (0.25, 0.5, 1.0), (0.02, 0.07, 0.25))
)


class Funnel(Generic[Drawn]):
    """Proposes each of the designs once, as `Proposer` says; serves a replay and a search alike."""

    def __init__(
        self, designs: Sequence[Drawn], costs: Matrix, features: Matrix, found: int, seed: int, at_most: int = 0
    ) -> None:
        """costs: (n, m) to minimise; features: (n, d) that tell the designs apart.

        `found` is the place, among the values told, of the objective that an evaluation finds out; it is maximised.
        `at_most`: limits at the far corner of the costs, beside the LIMITS that are spread.
        """
        self.designs, self.costs, self.features, self.found = designs, costs, features, found
        self.places = {design.key: place for place, design in enumerate(designs)}
        self.limits = np.vstack([cost_limits(costs), np.tile(costs.max(axis=0), (at_most, 1))])
        self.queue = _anchors(features, max(FEWEST_ANCHORS, ANCHORS), seed)
        self.generator = np.random.default_rng(seed)
        self.seen: set[str] = set()
        self.duplicates_avoided = 0
        self.proposed: set[int] = set()
        self.known: dict[int, float] = {}
        self.failed: set[int] = set()

    def propose(self) -> Drawn | None:
        """The next design, or None when all are proposed. Designs under way count as foreseen."""
        if len(self.proposed) == len(self.designs):
            return None
        self.queue = [place for place in self.queue if place not in self.proposed]
        return self.start(self.designs[self.queue[0] if self.queue else self._most_promising()])

    def start(self, design: Drawn) -> Drawn:
        """Takes this design as proposed; of one that is not in the list nothing is learnt."""
        self.seen.add(design.key)
        if design.key in self.places:
            self.proposed.add(self.places[design.key])
        return design

    def tell(self, design: Drawn, values: Sequence[float], violations: dict[str, float]) -> None:
        if design.key in self.places:
            self.known[self.places[design.key]] = values[self.found]

    def tell_failed(self, design: Drawn) -> None:
        if design.key in self.places:
            self.failed.add(self.places[design.key])

    def _most_promising(self) -> int:
        rest = np.array([place for place in range(len(self.costs)) if place not in self.proposed])
        if len(self.known) < FEWEST_ANCHORS:
            return int(self.generator.choice(rest))
        if len(rest) > MOST_COMPARED:
            rest = np.sort(self.generator.choice(rest, MOST_COMPARED, replace=False))
        places = list(self.known)
        qualities = np.array([self.known[place] for place in places])
        process = GaussianProcess(self.features[places], qualities.tolist(), kernels=KERNELS)
        pending = sorted(self.proposed - self.known.keys() - self.failed)
        foreseen = process.predict(self.features[pending])[0] if pending else np.empty(0)
        best = best_within(self.costs[[*places, *pending]], np.concatenate([qualities, foreseen]), self.limits)
        means, deviations = process.predict(self.features[rest])
        doubt = DOUBT if len(self.proposed) % 2 == 0 else 1.0
        gains = expected_gain(means, doubt * deviations, self.costs[rest], best, self.limits)
        return int(rest[int(np.argmax(gains))])


def funnel_of(problem: Problem, candidates: Sequence[Candidate], at_most: int = 0) -> Funnel:
    """A funnel over candidates whose costs are known; it finds out their quality."""
    found = problem.objectives.index("quality")
    gains = np.array([problem.maximised(problem.metrics(candidate)) for candidate in candidates])
    costs, features = -np.delete(gains, found, axis=1), problem.features.features(candidates)
    return Funnel(candidates, costs, features, found, problem.config.seed, at_most)


def cost_limits(costs: Matrix) -> Matrix:
    """(LIMITS, m): evenly spaced over the range of one cost, a Sobol sequence over the box of several."""
    low, high = costs.min(axis=0), costs.max(axis=0)
    if costs.shape[1] == 1:
        unit = (np.arange(LIMITS)[:, None] + 0.5) / LIMITS
    else:
        from scipy.stats.qmc import Sobol

        unit = Sobol(costs.shape[1], seed=0).random(LIMITS)
    result: Matrix = low + unit * (high - low)
    return result


def best_within(costs: Matrix, qualities: Matrix, limits: Matrix) -> Matrix:
    """(limits): the best quality within each cost limit; the worst of all where nothing is."""
    fits = (costs[:, None] <= limits[None]).all(axis=-1)
    result: Matrix = np.where(fits, qualities[:, None], qualities.min()).max(axis=0)
    return result


def expected_gain(means: Matrix, deviations: Matrix, costs: Matrix, best: Matrix, limits: Matrix) -> Matrix:
    """(n): expected gain in hypervolume of one evaluation of each, as a share of the cost box."""
    sizes = np.maximum(deviations, 1e-9)[:, None]
    z = (means[:, None] - best[None]) / sizes
    improvement = sizes * (z * ndtr(z) + np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi))
    fits = (costs[:, None] <= limits[None]).all(axis=-1)
    result: Matrix = (improvement * fits).mean(axis=1)
    return result


def _anchors(features: Matrix, count: int, seed: int) -> list[int]:
    """Spread over a random two thirds of the designs, so that seeds differ."""
    drawn = np.sort(np.random.default_rng(seed).permutation(len(features))[: max(count, 2 * len(features) // 3)])
    return [int(drawn[place]) for place in spread(features[drawn], count)]
