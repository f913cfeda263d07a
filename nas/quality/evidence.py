"""How each column of a table of trained models ranks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from nas.errors import ConfigError
from nas.quality.agreement import BandAgreement, agreement, agreement_at_equal_cost, bootstrap, top_overlap
from nas.quality.columns import Row, number, varies
from search_spaces.reading import hint


@dataclass(frozen=True, slots=True)
class Ranking:
    """How one column agrees with the truth: over all rows that have both, at equal cost, and at the top."""

    name: str
    n: int
    tau: float | None
    tau_low: float | None  # 90 % bootstrap interval over rows
    tau_high: float | None
    rho: float | None
    tau_equal_params: float | None
    pairs_equal_params: int
    tau_equal_latency: float | None
    pairs_equal_latency: int
    top_overlap: float  # share of the true best tenth that is in the predicted best tenth

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class NoiseCeiling:
    """How well one training of a design ranks as another of the same designs does: no score can be expected above."""

    designs: int
    rho: float
    tau: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    rows: Sequence[Row],
    *,
    truth: str,
    params: str,
    lower_is_better: bool = False,
    latency: str | None = None,
    depth: str | None = None,
    width: str | None = None,
) -> list[Ranking]:
    """The params baseline first, then every other numeric column, strongest tau first. Raises: ConfigError.

    Where `depth` and `width` name columns, their products stand beside the others as further baselines.
    """
    columns = {
        name: [number(row.get(name)) for row in rows] for name in dict.fromkeys(key for row in rows for key in row)
    }
    numeric = {name: values for name, values in columns.items() if varies(values)}  # a constant ranks nothing
    for wanted in filter(None, (params, latency, depth, width)):  # but may say that all are of one cost
        if any(value is not None for value in columns.get(wanted, ())):
            numeric[wanted] = columns[wanted]
    for wanted in filter(None, (truth, params, latency, depth, width)):
        if wanted not in numeric:
            if any(value is not None for value in columns.get(wanted, ())):
                raise ConfigError(f"column {wanted!r} holds one and the same number in every row, which ranks nothing")
            known = hint(wanted, sorted(numeric), "numeric columns")
            raise ConfigError(f"the table has no numeric column {wanted!r}; {known}")
    if depth and width:
        for power, name in ((1, f"{depth} x {width}"), (2, f"{depth} x {width}^2")):
            pairs = zip(numeric[depth], numeric[width], strict=True)
            numeric[name] = [None if d is None or w is None else d * w**power for d, w in pairs]
    sign = -1 if lower_is_better else 1
    result = [value if value is None else sign * value for value in numeric.pop(truth)]
    times = numeric[latency] if latency else None
    rankings = [_rank(name, values, result, numeric[params], times) for name, values in numeric.items()]
    return sorted(rankings, key=lambda one: (one.name != params, -abs(one.tau or 0), one.name))


def noise_ceiling(rows: Sequence[Row], *, truth: str, design: str) -> NoiseCeiling:
    """From designs that were trained at least twice: rank correlation of one training with another, mean of all pairs.

    A pair is a training's place among those of its design; as many as every repeated design has. Raises: ConfigError
    where fewer than five designs repeat.
    """
    if not any(design in row for row in rows):
        raise ConfigError(f"the table has no column {design!r}; {hint(design, sorted({k for r in rows for k in r}))}")
    results: dict[str, list[float]] = {}
    for row in rows:
        value = number(row.get(truth))
        if value is not None and row.get(design) is not None:
            results.setdefault(str(row[design]), []).append(value)
    repeated = [values for values in results.values() if len(values) > 1]
    if len(repeated) < 5:
        raise ConfigError(
            f"a noise ceiling needs five designs with two rows or more, but column {design!r} has {len(repeated)}"
        )
    found = [
        agreement([values[a] for values in repeated], [values[b] for values in repeated])
        for a, b in combinations(range(min(map(len, repeated))), 2)
    ]
    rho = fmean(one.spearman_rho or 0.0 for one in found)
    return NoiseCeiling(len(repeated), rho, fmean(one.kendall_tau or 0.0 for one in found))


def _rank(
    name: str,
    values: list[float | None],
    truth: list[float | None],
    params: list[float | None],
    times: list[float | None] | None,
) -> Ranking:
    known = [i for i, row in enumerate(zip(values, truth, params, strict=True)) if None not in row]
    scores, results, sizes = ([column[i] or 0.0 for i in known] for column in (values, truth, params))
    whole = agreement(scores, results)
    band = agreement_at_equal_cost(scores, results, sizes)
    timed = BandAgreement(0, None)
    if times is not None:
        both = [place for place, i in enumerate(known) if times[i] is not None]
        seconds = [times[known[place]] or 0.0 for place in both]
        timed = agreement_at_equal_cost([scores[place] for place in both], [results[place] for place in both], seconds)
    low, high = bootstrap(scores, results)["kendall_tau"] or (None, None)
    return Ranking(
        name, whole.n, whole.kendall_tau, low, high, whole.spearman_rho, band.kendall_tau, band.pairs,
        timed.kendall_tau, timed.pairs, top_overlap(scores, results),
    )  # fmt: skip
