"""Funnel: spends expensive evaluations near the predicted front. Costs are known for every design, quality is not.

Spread anchors come first. A Gaussian process fitted on all that is evaluated then says of every other design what an
evaluation would find, and the next one is where the expected gain in hypervolume is greatest. With known costs c the
expectation has a closed form (expected improvement, Jones et al. 1998, over all costs, cf. Emmerich et al. 2006):

    gain(x) = integral over t >= c(x) of E[max(0, q(x) - best(t))] dt,   best(t) = best quality evaluated within cost t

taken as the mean over LIMITS cost limits t that are spread over the box of all costs. Every second evaluation takes the
deviations DOUBT times as large: a model of a few dozen trainings is wrong in ways that its own interval does not know,
and the gain of a design that it misjudges is found in no other way. DOUBT was chosen on the micro-VLM table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from nas.config import FEWEST_ANCHORS
from nas.quality.structure import spread

Matrix = NDArray[np.float64]
Posterior = Callable[[Sequence[int], Matrix], tuple[Matrix, Matrix]]  # places, qualities -> mean and deviation of all
ANCHORS = 8
LIMITS = 256
DOUBT = 4.0


class Funnel:
    """Proposes designs by their place in a list; none twice."""

    def __init__(
        self, costs: Matrix, features: Matrix, posterior: Posterior, seed: int, anchors: int = ANCHORS
    ) -> None:
        """costs: (n, m) to minimise; features: (n, d), which the anchors are spread over."""
        self.costs, self.posterior = costs, posterior
        self.limits = cost_limits(costs)
        self.queue = _anchors(features, max(FEWEST_ANCHORS, anchors), seed)
        self.proposed: set[int] = set()
        self.known: dict[int, float] = {}

    def propose(self) -> int | None:
        """The place of the next design, or None when all are proposed. Designs under way count as foreseen."""
        if len(self.proposed) == len(self.costs):
            return None
        place = self.queue.pop(0) if self.queue else self._most_promising()
        self.proposed.add(place)
        return place

    def tell(self, place: int, quality: float) -> None:
        self.known[place] = quality

    def _most_promising(self) -> int:
        rest = np.array([place for place in range(len(self.costs)) if place not in self.proposed])
        if len(self.known) < FEWEST_ANCHORS:
            return int(rest[0])
        places = list(self.known)
        qualities = np.array([self.known[place] for place in places])
        means, deviations = self.posterior(places, qualities)
        pending = [place for place in self.proposed if place not in self.known]
        believed = np.concatenate([qualities, means[pending]])
        best = best_within(self.costs[[*places, *pending]], believed, self.limits)
        doubt = DOUBT if len(self.proposed) % 2 == 0 else 1.0
        gains = expected_gain(means[rest], doubt * deviations[rest], self.costs[rest], best, self.limits)
        return int(rest[int(np.argmax(gains))])


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
