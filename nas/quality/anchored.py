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
from typing import Any, Protocol

import numpy as np
from scipy.linalg import solve_triangular

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
        return self.of(*_geometry(a, b))

    def of(self, products: Matrix, distances: Matrix) -> Matrix:
        """Covariances from what `_geometry` gives, which is the same for all kernels."""
        result: Matrix = self.linear * products + self.smooth * np.exp(-distances / (2 * self.length**2))
        return result


class Features(Protocol):
    """What tells designs apart, as numbers."""

    def features(self, candidates: Sequence[Any]) -> Matrix: ...


class Anchored:
    """Predicts the accuracy of any candidate of `space` from those of trained ones."""

    def __init__(
        self,
        space: Sequence[Candidate],
        anchors: Sequence[Any],
        accuracies: Sequence[float],
        structure: Features | None = None,
    ) -> None:
        """`structure` replaces that of the space, for designs of another kind.

        Raises: ValueError for fewer than FEWEST_ANCHORS.
        """
        if len(anchors) < FEWEST_ANCHORS or len(anchors) != len(accuracies):
            raise ValueError(
                f"{FEWEST_ANCHORS} trained anchors or more are needed, each with its accuracy, got {len(anchors)}"
            )
        self.structure: Features = structure or Structure(space)
        self.anchors = tuple(anchors)
        self.features = self.structure.features(anchors)
        truth = np.asarray(accuracies, dtype=float)
        self.mean, self.scale = float(truth.mean()), float(truth.std()) or 1.0
        self.targets = (truth - self.mean) / self.scale
        self.geometry = _geometry(self.features, self.features)
        grid = [Kernel(*values) for values in product(LINEAR, SMOOTH, LENGTHS, NOISES)]
        self.kernel = max(grid, key=self._log_likelihood)
        self.inverse = np.linalg.inv(self._covariance(self.kernel))
        self.weights = self.inverse @ self.targets
        self.widening = self._widening()

    def predict(self, candidates: Sequence[Candidate]) -> list[Quality]:
        """One Quality a candidate, with an 80 % interval."""
        found = []
        for value, deviation in zip(*self.posterior(candidates), strict=True):
            half = Z80 * float(deviation)
            found.append(Quality(_share(value), _share(value - half), _share(value + half), "predicted:anchored"))
        return found

    def posterior(self, candidates: Sequence[Any]) -> tuple[Matrix, Matrix]:
        """(mean, standard deviation) of what training each candidate will give, noise and widening included."""
        features = self.structure.features(candidates)
        cross = self.kernel.between(features, self.features)
        own = self.kernel.linear * (features**2).sum(axis=1) / features.shape[1] + self.kernel.smooth
        variances = np.maximum(own - ((cross @ self.inverse) * cross).sum(axis=1), 0) + self.kernel.noise
        return self.mean + self.scale * (cross @ self.weights), self.widening * self.scale * np.sqrt(variances)

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
        result: Matrix = kernel.of(*self.geometry) + kernel.noise * np.eye(len(self.features))
        return result

    def _log_likelihood(self, kernel: Kernel) -> float:
        lower = np.linalg.cholesky(self._covariance(kernel))
        half = solve_triangular(lower, self.targets, lower=True, check_finite=False)
        return -0.5 * float(half @ half) - float(np.log(np.diag(lower)).sum())

    def _widening(self) -> float:
        """Factor of the posterior's interval that holds COVERAGE of the anchors left out (R & W eq. 5.10-5.12)."""
        variances = 1 / np.diag(self.inverse)
        errors = np.abs(self.weights * variances)
        rank = min(len(errors), math.ceil(COVERAGE * (len(errors) + 1)))
        factor = float(np.sort(errors / np.sqrt(variances))[rank - 1]) / Z80
        return max(1.0, factor)


def _geometry(a: Matrix, b: Matrix) -> tuple[Matrix, Matrix]:
    """(len(a), len(b)) inner products and squared distances, each divided by the number of features."""
    products = a @ b.T
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * products
    return products / a.shape[1], np.maximum(squares, 0) / a.shape[1]


def _share(value: float) -> float:
    return min(1.0, max(0.0, float(value)))
