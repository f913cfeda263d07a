"""The power transform of Yeo & Johnson (2000, Biometrika 87, eq. 4), whose power says where truths lie close together.

x >= 0: ((1 + x)^p - 1) / p        x < 0: -((1 - x)^(2 - p) - 1) / (2 - p)        logarithms for an exponent of 0
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nas.cost_rows import Matrix

POWERS = (0.0, 1.0, 2.0)  # 0 spreads the low truths, 1 leaves them as they are, 2 spreads the high ones


@dataclass(frozen=True, slots=True)
class Warp:
    """Yeo & Johnson's transform with power in 0..2, then `centre` to 0 and `spread` to 1; all of it increasing."""

    power: float
    centre: float
    spread: float

    @classmethod
    def fitted(cls, power: float, truths: Matrix) -> Warp:
        bent = _bent(truths, power)
        return cls(power, float(bent.mean()), float(bent.std()) or 1.0)

    def __call__(self, truths: Matrix) -> Matrix:
        result: Matrix = (_bent(truths, self.power) - self.centre) / self.spread
        return result

    def back(self, values: Matrix) -> Matrix:
        """The inverse."""
        bent = values * self.spread + self.centre
        above, below = np.maximum(bent, 0), np.maximum(-bent, 0)
        result: Matrix = _unraised(above, self.power) - _unraised(below, 2 - self.power)
        return result

    def log_slope(self, truths: Matrix) -> float:
        """Sum of the logarithms of its derivative at each truth."""
        steepness = (self.power - 1) * np.sign(truths) * np.log1p(np.abs(truths))
        return float(steepness.sum()) - len(truths) * math.log(self.spread)


def _bent(truths: Matrix, power: float) -> Matrix:
    above, below = np.maximum(truths, 0), np.maximum(-truths, 0)
    result: Matrix = _raised(above, power) - _raised(below, 2 - power)
    return result


def _raised(values: Matrix, power: float) -> Matrix:
    """((1 + x)^p - 1) / p, its limit log(1 + x) at 0."""
    result: Matrix = np.log1p(values) if power == 0 else ((1 + values) ** power - 1) / power
    return result


def _unraised(values: Matrix, power: float) -> Matrix:
    result: Matrix = np.expm1(values) if power == 0 else (1 + power * values) ** (1 / power) - 1
    return result
