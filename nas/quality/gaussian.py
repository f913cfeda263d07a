"""A Gaussian process on a few trained models, and which models to train for it.

Rasmussen & Williams, "Gaussian Processes for Machine Learning" (2006), algorithm 2.1, with the kernel

    k(a, b) = s a.b / d + r exp(-|a - b|^2 / (2 l^2 d)),   noise n

on standardised truths, warped (Snelson et al. 2003) by the power transform of Yeo & Johnson (2000): where most designs
learn little and a few much, equal steps of the truth are not equal steps of the design. s, r, l, n and the power are
averaged over a grid by marginal likelihood (5.2): a dozen models do not tell one setting from its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from nas.cost_rows import Matrix
from nas.quality.warp import POWERS, Warp

LINEAR, SMOOTH, LENGTHS, NOISES = (0.3, 1.0, 3.0), (0.1, 0.3, 1.0), (0.7, 1.0, 1.5), (0.05, 0.15, 0.4)
LEAST_SHARE = 1e-3  # of a kernel and a warp; those of less are left out
COVERAGE, Z80 = 0.8, 1.2816  # of an interval; its half width in deviations of a normal distribution
MOST_POOL = 1500  # candidates that are looked at when anchors are chosen, evenly spaced


@dataclass(frozen=True, slots=True)
class Kernel:
    """Hyperparameters, in units of standardised features and truths."""

    linear: float
    smooth: float
    length: float
    noise: float

    def between(self, a: Matrix, b: Matrix) -> Matrix:
        """(len(a), len(b)) covariances."""
        width = a.shape[1]
        products = a @ b.T
        distance = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * products, 0) / width
        result: Matrix = self.linear * products / width + self.smooth * np.exp(-distance / (2 * self.length**2))
        return result

    def own(self, a: Matrix) -> Matrix:
        """(len(a),) covariance of each row with itself."""
        result: Matrix = self.linear * (a**2).sum(axis=1) / a.shape[1] + self.smooth
        return result

    def observed(self, a: Matrix) -> Matrix:
        """(len(a), len(a)) covariance of noisy truths."""
        result: Matrix = self.between(a, a) + self.noise * np.eye(len(a))
        return result


KERNELS = tuple(Kernel(*values) for values in product(LINEAR, SMOOTH, LENGTHS, NOISES))
CENTRE = Kernel(1.0, 1.0, 1.0, 0.15)  # what anchors are chosen by, before any truth is known


class GaussianProcess:
    """Truth of any row of features, from those of a few; mixed over the kernels and warps that matter."""

    def __init__(
        self,
        features: Matrix,
        truths: Sequence[float],
        powers: Sequence[float] = POWERS,
        kernels: Sequence[Kernel] = KERNELS,
    ) -> None:
        """features: (n, d), about standardised; truths: n, higher is better; powers of the warps, 0 to 2."""
        self.features = features
        truth = np.asarray(truths, dtype=float)
        self.mean, self.scale = float(truth.mean()), float(truth.std()) or 1.0
        self.truths: Matrix = (truth - self.mean) / self.scale
        self.warps = [Warp.fitted(power, self.truths) for power in powers]
        self.targets: Matrix = np.array([warp(self.truths) for warp in self.warps]).T  # (n, warps)
        slopes = np.array([warp.log_slope(self.truths) for warp in self.warps])
        evidence = np.array([self._log_likelihoods(kernel) for kernel in kernels]) + slopes
        shares = np.exp(evidence - evidence.max())
        shares[shares < LEAST_SHARE * shares.sum()] = 0
        kept = shares.any(axis=1)
        self.kernels = tuple(kernel for kernel, keep in zip(kernels, kept, strict=True) if keep)
        self.shares: Matrix = shares[kept] / shares[kept].sum()  # (kernels, warps)
        self.inverses = [np.linalg.inv(kernel.observed(features)) for kernel in self.kernels]
        self.widening = self._widening()

    def predict(self, features: Matrix) -> tuple[Matrix, Matrix]:
        """(m, d) -> means and deviations (m,) of a training of each, in units of the truths."""
        means, variances = [], []
        for kernel, inverse in zip(self.kernels, self.inverses, strict=True):
            cross = kernel.between(features, self.features)
            means.append(cross @ (inverse @ self.targets))
            explained = ((cross @ inverse) * cross).sum(axis=1)
            variances.append(np.maximum(kernel.own(features) - explained, 0) + kernel.noise)
        mean, deviation = self._mixed(means, variances)
        return self.mean + self.scale * mean, self.widening * self.scale * deviation

    def left_out(self) -> Matrix:
        """(n,) what each is predicted from the others alone (R & W eq. 5.12), mean, scale and shares kept."""
        return self.mean + self.scale * self._left_out()[0]

    def log_score(self) -> float:
        """Log predictive density of the truths, each left out in turn (R & W eq. 5.11), of standardised truths."""
        mean, deviation = self._left_out()
        wrong = (self.truths - mean) / deviation
        return float(-(0.5 * wrong**2 + np.log(deviation) + 0.5 * math.log(2 * math.pi)).sum())

    def _left_out(self) -> tuple[Matrix, Matrix]:
        means, variances = [], []
        for inverse in self.inverses:
            variance = 1 / np.diag(inverse)
            means.append(self.targets - (inverse @ self.targets) * variance[:, None])
            variances.append(variance)
        return self._mixed(means, variances)

    def _mixed(self, means: Sequence[Matrix], variances: Sequence[Matrix]) -> tuple[Matrix, Matrix]:
        """(m, warps) and (m,) of each kernel -> mean and deviation (m,) of the mixture, warped back.

        A warped normal counts by its median and half the way from its quantile at -1 deviation to that at 1.
        """
        mean, second = np.zeros(len(variances[0])), np.zeros(len(variances[0]))
        for shares, centres, variance in zip(self.shares, means, variances, strict=True):
            deviation = np.sqrt(variance)
            for place in np.flatnonzero(shares):
                warp, centre = self.warps[place], centres[:, place]
                middle, half = warp.back(centre), (warp.back(centre + deviation) - warp.back(centre - deviation)) / 2
                mean += shares[place] * middle
                second += shares[place] * (half**2 + middle**2)
        return mean, np.sqrt(np.maximum(second - mean**2, 1e-12))

    def _log_likelihoods(self, kernel: Kernel) -> Matrix:
        """(warps,) of the warped truths."""
        lower = np.linalg.cholesky(kernel.observed(self.features))
        halves = np.linalg.solve(lower, self.targets)
        result: Matrix = -0.5 * (halves**2).sum(axis=0) - np.log(np.diag(lower)).sum()
        return result

    def _widening(self) -> float:
        """Factor of the deviation whose interval holds COVERAGE of the truths left out in turn; 1 or more."""
        mean, deviation = self._left_out()
        errors = np.sort(np.abs(self.truths - mean) / deviation)
        rank = min(len(errors), math.ceil(COVERAGE * (len(errors) + 1)))
        return max(1.0, float(errors[rank - 1]) / Z80)


def informative(features: Matrix, count: int, kernel: Kernel = CENTRE) -> list[int]:
    """Indices of `count` rows after whose training the others are least uncertain.

    Greedy: each lowers the sum of all rows' posterior variances most (the ALC criterion, Cohn 1996; Seo et al. 2000).
    The farthest points that it replaces are extremes, of which less follows for the rest.
    """
    pool = np.arange(len(features))
    if len(pool) > MOST_POOL:
        pool = np.unique(np.linspace(0, len(features) - 1, MOST_POOL).round().astype(int))
    rows = features[pool]
    covariance = kernel.between(rows, rows)
    chosen: list[int] = []
    for _ in range(min(count, len(pool))):
        gain = (covariance**2).sum(axis=1) / (np.diag(covariance) + kernel.noise)
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        step = covariance[:, best] / math.sqrt(covariance[best, best] + kernel.noise)
        covariance = covariance - np.outer(step, step)
    return [int(pool[place]) for place in chosen]
