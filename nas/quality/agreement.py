"""Does a score rank as the truth does? Always with the params baseline beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Agreement:
    """Rank correlation of one score with the truth over n models; None where it is undefined."""

    n: int
    kendall_tau: float | None
    spearman_rho: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def agreement(scores: Sequence[float], truth: Sequence[float]) -> Agreement:
    """Kendall's tau-b and Spearman's rho; undefined for fewer than two models or a constant column."""
    if len(scores) < 2 or len(set(scores)) < 2 or len(set(truth)) < 2:
        return Agreement(len(scores), None, None)
    from scipy.stats import kendalltau, spearmanr

    tau, rho = float(kendalltau(scores, truth)[0]), float(spearmanr(scores, truth)[0])
    return Agreement(len(scores), tau if math.isfinite(tau) else None, rho if math.isfinite(rho) else None)
