"""predicted:anchored: quality from the structure of a candidate and a few trained anchors of its own space.

A Gaussian process (Rasmussen & Williams 2006, algorithm 2.1) over `Structure`'s features with the kernel

    k(a, b) = s a.b / d + r exp(-|a - b|^2 / (2 l^2 d)),   noise n

on standardised accuracies; s, r, l, n are the grid point of highest marginal likelihood, weighed by nothing else.
The interval is the posterior's, widened until it holds 80 % of the anchors when each is left out in turn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from nas.config import FEWEST_ANCHORS
from nas.quality.structure import Matrix, Structure
from nas.records import Quality
from search_spaces.candidate import Candidate

COVERAGE = 0.8
Z80 = 1.2816  # of a normal distribution
LINEAR, SMOOTH, LENGTHS, NOISES = (0.3, 1.0, 3.0), (0.3, 1.0), (0.7, 1.0, 1.5), (0.05, 0.15, 0.4)


@dataclass(frozen=True, slots=True)
class Kernel:
    """Hyperparameters, in units of standardised features and accuracies."""

    linear: float
    smooth: float
    length: float
    noise: float

    def between(self, a: Matrix, b: Matrix) -> Matrix:
        """(len(a), len(b)) covariances."""
        width = a.shape[1]
        distance = ((a[:, None] - b[None]) ** 2).sum(axis=-1) / width
        result: Matrix = self.linear * (a @ b.T) / width + self.smooth * np.exp(-distance / (2 * self.length**2))
        return result


class Anchored:
    """Predicts the accuracy of any candidate of `space` from those of trained ones."""

    def __init__(self, space: Sequence[Candidate], anchors: Sequence[Candidate], accuracies: Sequence[float]) -> None:
        """Raises: ValueError for fewer than FEWEST_ANCHORS."""
        if len(anchors) < FEWEST_ANCHORS or len(anchors) != len(accuracies):
            raise ValueError(
                f"{FEWEST_ANCHORS} trained anchors or more are needed, each with its accuracy, got {len(anchors)}"
            )
        self.structure = Structure(space)
        self.anchors = tuple(anchors)
        self.features = self.structure.features(anchors)
        truth = np.asarray(accuracies, dtype=float)
        self.mean, self.scale = float(truth.mean()), float(truth.std()) or 1.0
        self.targets = (truth - self.mean) / self.scale
        grid = [Kernel(*values) for values in product(LINEAR, SMOOTH, LENGTHS, NOISES)]
        self.kernel = max(grid, key=self._log_likelihood)
        self.inverse = np.linalg.inv(self._covariance(self.kernel))
        self.weights = self.inverse @ self.targets
        self.widening = self._widening()

    def predict(self, candidates: Sequence[Candidate]) -> list[Quality]:
        """One Quality a candidate, with an 80 % interval."""
        features = self.structure.features(candidates)
        cross = self.kernel.between(features, self.features)
        means = cross @ self.weights
        own = np.array([self.kernel.between(row[None], row[None])[0, 0] for row in features])
        variances = np.maximum(own - ((cross @ self.inverse) * cross).sum(axis=1), 0) + self.kernel.noise
        found = []
        for mean, variance in zip(means, variances, strict=True):
            value = self.mean + self.scale * float(mean)
            half = self.widening * Z80 * self.scale * math.sqrt(float(variance))
            found.append(Quality(_share(value), _share(value - half), _share(value + half), "predicted:anchored"))
        return found

    def left_out(self) -> list[float]:
        """What each anchor is predicted from the others alone (R & W eq. 5.12)."""
        errors = self.weights / np.diag(self.inverse)
        return [self.mean + self.scale * float(one) for one in self.targets - errors]

    def to_dict(self) -> Mapping[str, Any]:
        """What the predictions follow from, for the run's records."""
        return {
            "anchors": [candidate.key for candidate in self.anchors],
            "accuracies": [round(self.mean + self.scale * float(target), 6) for target in self.targets],
            "kernel": {name: getattr(self.kernel, name) for name in ("linear", "smooth", "length", "noise")},
            "interval_widening": self.widening,
        }

    def _covariance(self, kernel: Kernel) -> Matrix:
        result: Matrix = kernel.between(self.features, self.features) + kernel.noise * np.eye(len(self.features))
        return result

    def _log_likelihood(self, kernel: Kernel) -> float:
        lower = np.linalg.cholesky(self._covariance(kernel))
        half = np.linalg.solve(lower, self.targets)
        return -0.5 * float(half @ half) - float(np.log(np.diag(lower)).sum())

    def _widening(self) -> float:
        """Factor of the posterior's interval that holds COVERAGE of the anchors left out (R & W eq. 5.10-5.12)."""
        variances = 1 / np.diag(self.inverse)
        errors = np.abs(self.weights * variances)
        rank = min(len(errors), math.ceil(COVERAGE * (len(errors) + 1)))
        factor = float(np.sort(errors / np.sqrt(variances))[rank - 1]) / Z80
        return max(1.0, factor)


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))
