"""predicted:anchored: quality from the structure of a candidate and a few trained anchors of its own space.

A Gaussian process over `Structure`'s features, and over a proxy's values beside them where that predicts the anchors
better when each is left out. The interval is the posterior's, widened until it holds 80 % of the anchors left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from nas.config import FEWEST_ANCHORS
from nas.cost_rows import Matrix
from nas.quality.gaussian import Z80, GaussianProcess
from nas.quality.structure import Structure
from nas.records import Quality
from search_spaces.candidate import Candidate

Scores = Mapping[str, float | None]  # a candidate's proxies by name

# Log predictive density that a proxy must gain. Of p proxies that say nothing the best gains about log p by chance.
LEAST_GAIN = 3.0


class Features(Protocol):
    """What tells designs apart, as numbers."""

    def features(self, candidates: Sequence[Any]) -> Matrix: ...


class Anchored:
    """Predicts the accuracy of any candidate of `space` from those of trained ones.

    `tried` has, by proxy, what the log predictive density of the anchors gains with it beside the structure; `admitted`
    is the one whose gain is above `least_gain` + log(proxies tried), if there is one.
    """

    def __init__(
        self,
        space: Sequence[Candidate],
        anchors: Sequence[Any],
        accuracies: Sequence[float],
        structure: Features | None = None,
        *,
        proxies: Sequence[Scores] | None = None,
        least_gain: float | None = None,
    ) -> None:
        """`structure` replaces that of the space, for designs of another kind; `least_gain` replaces LEAST_GAIN, for
        scores that are likelier to say something than any proxy.

        Raises: ValueError for fewer than FEWEST_ANCHORS.
        """
        if len(anchors) < FEWEST_ANCHORS or len(anchors) != len(accuracies):
            raise ValueError(
                f"{FEWEST_ANCHORS} trained anchors or more are needed, each with its accuracy, got {len(anchors)}"
            )
        self.structure: Features = structure or Structure(space)
        self.anchors, self.accuracies = tuple(anchors), tuple(accuracies)
        self.process = GaussianProcess(self.structure.features(anchors), accuracies)
        self.least_gain = LEAST_GAIN if least_gain is None else least_gain
        self.tried: dict[str, float] = {}
        self.admitted: str | None = None
        self.with_proxy: GaussianProcess | None = None
        if proxies is not None:
            self._admit(proxies)

    def predict(self, candidates: Sequence[Candidate], proxies: Sequence[Scores] | None = None) -> list[Quality]:
        """One Quality a candidate, with an 80 % interval; by structure alone where the admitted proxy is not known."""
        means, deviations = self.posterior(candidates, proxies)
        halves = Z80 * deviations
        return [
            Quality(_share(mean), _share(mean - half), _share(mean + half), "predicted:anchored")
            for mean, half in zip(means.tolist(), halves.tolist(), strict=True)
        ]

    def posterior(self, candidates: Sequence[Any], proxies: Sequence[Scores] | None = None) -> tuple[Matrix, Matrix]:
        """(mean, standard deviation) of what training each candidate will give, noise and widening included."""
        features = self.structure.features(candidates)
        means, deviations = self.process.predict(features)
        if self.with_proxy is not None and proxies is not None and self.admitted is not None:
            column = [scores.get(self.admitted) for scores in proxies]
            known = [place for place, value in enumerate(column) if value is not None]
            if known:
                values = self._column([column[place] or 0.0 for place in known])
                seen = self.with_proxy.predict(np.hstack([features[known], values]))
                means[known], deviations[known] = seen
        return means, deviations

    def left_out(self) -> list[float]:
        """What each anchor is predicted from the others alone; the admitted proxy was chosen with it."""
        return [float(one) for one in (self.with_proxy or self.process).left_out()]

    def to_dict(self) -> Mapping[str, Any]:
        """What the predictions follow from, for the run's records."""
        used = self.with_proxy or self.process
        return {
            "anchors": [candidate.key for candidate in self.anchors],
            "accuracies": [round(one, 6) for one in self.accuracies],
            "kernels": [
                {**{name: getattr(kernel, name) for name in kernel.__slots__}, "shares_by_power": powers}
                for kernel, powers in zip(used.kernels, used.shares.round(4).tolist(), strict=True)
            ],
            "interval_widening": used.widening,
            "proxies": {
                "gains": {name: round(gain, 3) for name, gain in self.tried.items()},
                "least_gain": round(self._least_gain(), 3),
                "admitted": self.admitted,
            },
        }

    def _least_gain(self) -> float:
        return self.least_gain + math.log(max(1, len(self.tried)))

    def _admit(self, proxies: Sequence[Scores]) -> None:
        """Fits the structure with each proxy that every anchor has, and keeps the best where it is good enough."""
        own, base = self.process.features, self.process.log_score()
        fits = {}
        for name in dict.fromkeys(name for scores in proxies for name in scores):
            column = [scores.get(name) for scores in proxies]
            values = [value for value in column if value is not None]
            if len(values) < len(column) or len(set(values)) < 2:
                continue
            self.centre, self.spread = _centre_and_spread(values)
            fit = GaussianProcess(np.hstack([own, self._column(values)]), self.accuracies)
            fits[name] = (fit, self.centre, self.spread)
            self.tried[name] = fit.log_score() - base
        best = max(self.tried, key=lambda name: self.tried[name], default=None)
        if best is not None and self.tried[best] > self._least_gain():
            self.admitted = best
            self.with_proxy, self.centre, self.spread = fits[best]

    def _column(self, values: Sequence[float]) -> Matrix:
        """(n, 1): signed logarithms, standardised on the anchors; beyond three deviations it is cut off."""
        found = (_logarithm(values) - self.centre) / self.spread
        column: Matrix = np.clip(found, -3, 3)[:, None]
        return column


def _logarithm(values: Sequence[float]) -> Matrix:
    """Proxies differ by orders of magnitude and may be negative: sign(x) log(1 + |x|)."""
    array = np.asarray(values, dtype=float)
    found: Matrix = np.sign(array) * np.log1p(np.abs(array))
    return found


def _centre_and_spread(values: Sequence[float]) -> tuple[float, float]:
    found = _logarithm(values)
    return float(found.mean()), float(found.std()) or 1.0


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))
