"""How well K trained rows of a table say how the others rank: the product's anchored score, on any table."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nas.config import FEWEST_ANCHORS
from nas.cost_rows import Matrix
from nas.errors import ConfigError
from nas.quality.agreement import agreement, agreement_at_equal_cost
from nas.quality.anchored import Anchored, Scores
from nas.quality.columns import Row, number
from nas.quality.derived import Derived
from nas.quality.gaussian import Z80, informative

MOST_RANKED = 2000


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
    tau: Spread | None  # None where no draw has one
    rho: Spread | None
    tau_equal_params: Spread | None
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
    design: str | None = None,
) -> AnchoredRanking:
    """Anchors are chosen of a random half of the rows by structure alone, `draws` times. Raises: ConfigError.

    Rows that have the `design` of an anchor are not ranked. Of a large table MOST_RANKED rows a draw are.
    """
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
    ranked = _Ranked(
        derived.matrix(usable),
        np.array([results[place] for place in usable], dtype=float) * (-1 if lower else 1),
        [counts[place] or 0.0 for place in usable],
        [None if latency is None else number(rows[place].get(latency)) for place in usable],
        [str(place if design is None else rows[place].get(design)) for place in usable],
        derived.leading,
        [{name: derived.columns[name][place] for name in derived.offered} for place in usable],
    )
    found = [_draw(ranked, count, random.Random(draw)) for draw in range(draws)]
    return AnchoredRanking(
        count, draws, min(one.n for one in found), _spread([one.tau for one in found]),
        _spread([one.rho for one in found]), _spread([one.tau_equal_params for one in found]),
        _spread([one.tau_equal_latency for one in found]), float(np.mean([one.coverage for one in found])),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Columns of the rows whose structure, truth and size are known."""

    features: Matrix
    truth: Matrix  # higher is better
    params: list[float]
    latency: list[float | None]
    designs: list[str]
    leading: int | None
    offered: list[Scores]


@dataclass(frozen=True, slots=True)
class _Leading:
    """The features of rows, by place, that the score is always fitted on."""

    rows: _Ranked

    def features(self, places: Sequence[int]) -> Matrix:
        found: Matrix = self.rows.features[list(places), : self.rows.leading]
        return found


@dataclass(frozen=True, slots=True)
class _Draw:
    n: int
    tau: float | None
    rho: float | None
    tau_equal_params: float | None
    tau_equal_latency: float | None
    coverage: float


def _draw(rows: _Ranked, count: int, generator: random.Random) -> _Draw:
    half = generator.sample(range(len(rows.truth)), len(rows.truth) // 2)
    chosen = [half[place] for place in informative(rows.features[half], count)]
    anchors = [rows.offered[place] for place in chosen]
    model = Anchored((), chosen, rows.truth[chosen].tolist(), _Leading(rows), proxies=anchors, least_gain=0.0)
    taken = {rows.designs[place] for place in chosen}
    held = [place for place, design in enumerate(rows.designs) if design not in taken]
    if not held:
        raise ConfigError(f"no design is left to rank beside {count} anchors; give --anchors less")
    held = sorted(generator.sample(held, min(len(held), MOST_RANKED)))
    means, deviations = model.posterior(held, [rows.offered[place] for place in held])
    guess, truth = means.tolist(), rows.truth[held].tolist()
    whole = agreement(guess, truth)
    at_params = agreement_at_equal_cost(guess, truth, [rows.params[place] for place in held])
    timed = [at for at, place in enumerate(held) if rows.latency[place] is not None]
    at_latency = agreement_at_equal_cost(
        [guess[at] for at in timed], [truth[at] for at in timed], [rows.latency[held[at]] or 0.0 for at in timed]
    )
    inside = np.abs(means - rows.truth[held]) <= Z80 * deviations
    return _Draw(
        len(held), whole.kendall_tau, whole.spearman_rho, at_params.kendall_tau, at_latency.kendall_tau,
        float(inside.mean()),
    )  # fmt: skip


def _spread(values: Sequence[float | None]) -> Spread | None:
    """Of the draws where the figure is defined."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high = np.quantile(known, [0.1, 0.9])
    return Spread(float(np.mean(known)), float(low), float(high))
