"""Does a score rank as the truth does? Always with the params baseline beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

BAND = 1.10  # two models within 10 % of each other's parameters are of equal cost


@dataclass(frozen=True, slots=True)
class Agreement:
    """Rank correlation of one score with the truth over n models; None where it is undefined."""

    n: int
    kendall_tau: float | None
    spearman_rho: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class BandAgreement:
    """Kendall's tau-b over the pairs of models of equal cost; None where no pair decides."""

    pairs: int
    kendall_tau: float | None


def agreement(scores: Sequence[float], truth: Sequence[float]) -> Agreement:
    """Kendall's tau-b and Spearman's rho; undefined for fewer than two models or a constant column."""
    if len(scores) != len(truth):
        raise ValueError(f"scores and truth must be of one length, but got {len(scores)} and {len(truth)}")
    if len(scores) < 2 or len(set(scores)) < 2 or len(set(truth)) < 2:
        return Agreement(len(scores), None, None)
    from scipy.stats import kendalltau, spearmanr

    tau, rho = float(kendalltau(scores, truth)[0]), float(spearmanr(scores, truth)[0])
    return Agreement(len(scores), tau if math.isfinite(tau) else None, rho if math.isfinite(rho) else None)


def agreement_at_equal_cost(
    scores: Sequence[float], truth: Sequence[float], params: Sequence[float], band: float = BAND
) -> BandAgreement:
    """tau-b = (concordant - discordant) / sqrt(pairs untied in score x pairs untied in truth), in the band."""
    size = np.asarray(params, dtype=float)
    first, second = np.triu_indices(len(size), 1)
    equal = np.maximum(size[first], size[second]) <= band * np.minimum(size[first], size[second])
    first, second = first[equal], second[equal]
    score, result = np.asarray(scores, dtype=float), np.asarray(truth, dtype=float)
    by_score, by_truth = np.sign(score[first] - score[second]), np.sign(result[first] - result[second])
    untied = int((by_score != 0).sum()) * int((by_truth != 0).sum())
    tau = float((by_score * by_truth).sum()) / math.sqrt(untied) if untied else None
    return BandAgreement(len(first), tau)
