"""A device's speed from a few measured points: a small model over closed-form features, with its own honest error.

    t = sum_i c_i f_i,  all c_i >= 0,   minimising sum ((t - t_measured) / t_measured)^2

with features that are proportional to time: a constant, FLOPs, bytes moved, kernels. This is a roofline whose terms
add (no overlap), with the device's own rates as coefficients; being positive and few, they are all the regularisation
that twenty points need. The interval is conformal: quantiles of the relative errors of each point when it is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nas.cost_rows import Matrix
from nas.latency.spread import representative

COVERAGE = 0.8
LEAST_POINTS = 5


@dataclass(frozen=True, slots=True)
class Prediction:
    """Milliseconds with an 80 % interval; `extrapolated` where a feature lies outside what was measured."""

    value: float
    low: float
    high: float
    extrapolated: bool


@dataclass(frozen=True, slots=True)
class CalibratedModel:
    """Coefficients in ms per unit of each feature; plain numbers, kept as JSON."""

    features: tuple[str, ...]
    coefficients: tuple[float, ...]
    lowest: tuple[float, ...]  # of each feature over the measured points
    highest: tuple[float, ...]
    low_ratio: float  # truth / prediction: the interval's ends
    high_ratio: float
    points: int

    def predict(self, features: ArrayLike) -> list[Prediction]:
        """(n, features) -> n predictions."""
        asked = np.atleast_2d(np.asarray(features, dtype=float))
        values = asked @ np.array(self.coefficients)
        outside = ((asked < np.array(self.lowest)) | (asked > np.array(self.highest))).any(axis=1)
        return [
            Prediction(float(value), float(value) * self.low_ratio, float(value) * self.high_ratio, bool(out))
            for value, out in zip(values, np.atleast_1d(outside), strict=True)
        ]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> CalibratedModel:
        """Raises: ValueError, TypeError or KeyError where the text is no such model."""
        fields: dict[str, Any] = json.loads(text)
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
        }
        return cls(**plain)


def fit(names: Sequence[str], features: ArrayLike, times_ms: ArrayLike) -> CalibratedModel:
    """Fits measured points: features (n, k) and times (n). Raises: ValueError for fewer than five points."""
    known, times = np.asarray(features, dtype=float), np.asarray(times_ms, dtype=float)
    if len(times) < LEAST_POINTS:
        raise ValueError(f"a calibration needs at least {LEAST_POINTS} measured points, but got {len(times)}")
    ratios = np.sort(times / left_out(known, times))
    return CalibratedModel(
        tuple(names),
        tuple(solve(known, times).tolist()),
        tuple(known.min(axis=0).tolist()),
        tuple(known.max(axis=0).tolist()),
        *_interval(ratios),
        len(times),
    )


def solve(features: Matrix, times_ms: Matrix) -> Matrix:
    """Coefficients (k) that are positive and best in relative error."""
    from scipy.optimize import nnls

    scale = np.maximum(features.max(axis=0), 1e-300)
    coefficients, _ = nnls(features / scale / times_ms[:, None], np.ones(len(times_ms)))
    found: Matrix = coefficients / scale
    return found


def left_out(features: Matrix, times_ms: Matrix) -> Matrix:
    """Prediction of each point by a fit without it; never below a thousandth of the truth."""
    predicted = np.empty(len(times_ms))
    for index in range(len(times_ms)):
        rest = np.arange(len(times_ms)) != index
        predicted[index] = features[index] @ solve(features[rest], times_ms[rest])
    return np.maximum(predicted, 1e-3 * times_ms)


def spread(features: ArrayLike, count: int) -> list[int]:
    """Indices of `count` points that stand for all in the logarithm of their features, the ends among them."""
    return representative(np.log(np.asarray(features, dtype=float) + 1e-12), count)


def _interval(ratios: Matrix) -> tuple[float, float]:
    """Conformal: the quantiles that n + 1 exchangeable points would have."""
    n, tail = len(ratios), (1 - COVERAGE) / 2
    low = ratios[max(0, math.floor(tail * (n + 1)) - 1)]
    high = ratios[min(n - 1, math.ceil((1 - tail) * (n + 1)) - 1)]
    return min(1.0, float(low)), max(1.0, float(high))
