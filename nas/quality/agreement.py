"""Does a score rank as the truth does? Always with the params baseline beside it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

RESAMPLES, MOST_DRAWN = 200, 1000
TOP = 0.10
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


def bootstrap(scores: Sequence[float], truth: Sequence[float]) -> dict[str, tuple[float, float] | None]:
    """90 % intervals of tau and rho: their 5 and 95 % quantiles over models drawn with replacement.

    Of n models at most m = MOST_DRAWN are drawn, and deviations from the whole shrink by sqrt(m / n) (Bickel, Goetze &
    van Zwet 1997). None for fewer than three models, or where every draw is constant.
    """
    generator = random.Random(0)
    score, result = np.asarray(scores, dtype=float), np.asarray(truth, dtype=float)
    places, count = range(len(score)), min(len(score), MOST_DRAWN)
    shrunk = math.sqrt(count / len(score)) if places else 1.0
    whole = agreement(scores, truth).to_dict()
    drawn: dict[str, list[float]] = {"kendall_tau": [], "spearman_rho": []}
    for _ in range(RESAMPLES if len(score) > 2 else 0):
        chosen = generator.choices(places, k=count)
        found = agreement(score[chosen].tolist(), result[chosen].tolist())
        for name, values in drawn.items():
            value = getattr(found, name)
            if value is not None:
                values.append(whole[name] + shrunk * (value - whole[name]))
    return {name: _middle(sorted(values)) for name, values in drawn.items()}


def _middle(values: Sequence[float]) -> tuple[float, float] | None:
    """Of ascending values what is left without 5 % at each end."""
    if not values:
        return None
    return values[int(0.05 * (len(values) - 1))], values[round(0.95 * (len(values) - 1))]


def agreement_at_equal_cost(
    scores: Sequence[float], truth: Sequence[float], params: Sequence[float], band: float = BAND
) -> BandAgreement:
    """tau-b = (concordant - discordant) / sqrt(pairs untied in score x pairs untied in truth), in the band."""
    order = np.argsort(np.asarray(params, dtype=float), kind="stable")
    size, score, result = (np.asarray(column, dtype=float)[order] for column in (params, scores, truth))
    ends = np.searchsorted(size, band * size, side="right")
    pairs = balance = by_score_untied = by_truth_untied = 0
    for place, end in enumerate(ends):  # a row's partners stand right behind it; a matrix of all pairs may not fit
        by_score = np.sign(score[place + 1 : end] - score[place])
        by_truth = np.sign(result[place + 1 : end] - result[place])
        pairs += len(by_score)
        balance += int((by_score * by_truth).sum())
        by_score_untied += int(np.count_nonzero(by_score))
        by_truth_untied += int(np.count_nonzero(by_truth))
    untied = by_score_untied * by_truth_untied
    return BandAgreement(pairs, balance / math.sqrt(untied) if untied else None)


def top_overlap(scores: Sequence[float], truth: Sequence[float]) -> float:
    """Share of the true best tenth, of one model at least, that is in the predicted best tenth; 0 for no models."""
    count = max(1, round(TOP * len(scores)))
    best = [set(sorted(range(len(scores)), key=column.__getitem__)[-count:]) for column in (scores, truth)]
    return len(best[0] & best[1]) / count if scores else 0.0
