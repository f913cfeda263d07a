"""How well K trained rows of a table say how the others rank: the product's anchored score, on any table."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nas.config import FEWEST_ANCHORS
from nas.errors import ConfigError
from nas.quality.agreement import agreement, agreement_at_equal_cost
from nas.quality.columns import Row, number
from nas.quality.derived import Derived
from nas.quality.gaussian import Z80, GaussianProcess, informative


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over draws of the anchors: mean, and 10 and 90 % quantiles."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class AnchoredRanking:
    """Rank correlation of predicted with trained, over the rows that are no anchors."""

    anchors: int
    draws: int
    n: int  # rows ranked a draw
    tau: Spread
    rho: Spread
    tau_equal_params: Spread
    tau_equal_latency: Spread | None
    coverage: float  # share of the truths inside the 80 % intervals

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def rank_by_anchors(
    rows: Sequence[Row],
    derived: Derived | None,
    *,
    truth: str,
    params: str,
    lower: bool,
    count: int,
    draws: int,
    latency: str | None = None,
) -> AnchoredRanking:
    """Anchors are chosen of a random half of the rows by structure alone, `draws` times. Raises: ConfigError."""
    if derived is None:
        raise ConfigError("--anchors needs rows with a configuration (depth, width, feed-forward), but none has one")
    if count < FEWEST_ANCHORS:
        raise ConfigError(f"--anchors must be {FEWEST_ANCHORS} or more, but got {count}")
    results = [number(row.get(truth)) for row in rows]
    counts = [number(row.get(params)) for row in rows]
    known = zip(results, counts, derived.features, strict=True)
    usable = [place for place, row in enumerate(known) if None not in row]
    if len(usable) < 2 * count:
        raise ConfigError(
            f"--anchors must be at most half of the {len(usable)} rows of known structure, but got {count}"
        )
    features = derived.matrix(usable)
    goal = np.array([results[place] for place in usable], dtype=float) * (-1 if lower else 1)
    sizes = [counts[place] or 0.0 for place in usable]
    times = None if latency is None else [number(rows[place].get(latency)) for place in usable]
    found: dict[str, list[float]] = {name: [] for name in ("tau", "rho", "params", "latency", "inside")}
    for draw in range(draws):
        half = random.Random(draw).sample(range(len(usable)), len(usable) // 2)
        chosen = [half[place] for place in informative(features[half], count)]
        process = GaussianProcess(features[chosen], goal[chosen].tolist())
        held = [place for place in range(len(usable)) if place not in set(chosen)]
        means, deviations = process.predict(features[held])
        guess, real = means.tolist(), goal[held].tolist()
        whole = agreement(guess, real)
        found["tau"].append(whole.kendall_tau or 0.0)
        found["rho"].append(whole.spearman_rho or 0.0)
        band = agreement_at_equal_cost(guess, real, [sizes[place] for place in held])
        found["params"].append(band.kendall_tau or 0.0)
        if times is not None:
            timed = [(g, r, t) for g, r, p in zip(guess, real, held, strict=True) if (t := times[p]) is not None]
            at_latency = agreement_at_equal_cost(
                [one[0] for one in timed], [one[1] for one in timed], [one[2] for one in timed]
            )
            found["latency"].append(at_latency.kendall_tau or 0.0)
        found["inside"].append(float((np.abs(means - goal[held]) <= Z80 * deviations).mean()))
    timed_spread = None if times is None else _spread(found["latency"])
    return AnchoredRanking(
        count, draws, len(usable) - count, _spread(found["tau"]), _spread(found["rho"]), _spread(found["params"]),
        timed_spread, float(np.mean(found["inside"])),
    )  # fmt: skip


def _spread(values: Sequence[float]) -> Spread:
    low, high = np.quantile(values, [0.1, 0.9])
    return Spread(float(np.mean(values)), float(low), float(high))
