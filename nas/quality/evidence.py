"""Tables of trained models, and how each of their columns ranks them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from nas.errors import ConfigError
from nas.quality.agreement import BandAgreement, agreement, agreement_at_equal_cost, bootstrap
from nas.quality.columns import Row, number
from search_spaces.reading import hint

TOP = 0.10


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


def read_table(path: Path) -> list[Row]:
    """Rows of a CSV, TSV, JSON (a list) or JSON-lines file; nested fields become dotted names. Raises: ConfigError."""
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise ConfigError(f"a table ends in {', '.join(READERS)}, but got {path.name!r}")
    try:
        rows = read(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if not rows:
        raise ConfigError(f"the table {path} has no rows; it needs one a trained model")
    return rows


def _read_csv(text: str) -> list[Row]:
    """Separated by whichever of comma, semicolon and tab stands most often in the header."""
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    rows = []
    for row in reader:
        if None in row:
            raise ValueError(f"line {reader.line_num} has more cells than the header")
        rows.append({name.strip(): value for name, value in row.items()})
    return rows


def _read_json(text: str) -> list[Row]:
    rows = json.loads(text)
    if not isinstance(rows, list):
        raise ValueError("it must hold a list of rows")
    return [_flat(row) for row in rows]


def _read_json_lines(text: str) -> list[Row]:
    rows = []
    for number_of_line, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                rows.append(_flat(json.loads(line)))
            except ValueError as error:
                raise ValueError(f"line {number_of_line}: {error}") from None
    return rows


READERS = {".csv": _read_csv, ".tsv": _read_csv, ".json": _read_json, ".jsonl": _read_json_lines}


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
    numeric = {
        name: values for name, values in columns.items() if len({*values} - {None}) >= 2
    }  # a constant ranks nothing
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
        timed.kendall_tau, timed.pairs, _top_overlap(scores, results),
    )  # fmt: skip


def _top_overlap(scores: Sequence[float], truth: Sequence[float]) -> float:
    count = max(1, round(TOP * len(scores)))
    best = [set(sorted(range(len(scores)), key=column.__getitem__)[-count:]) for column in (scores, truth)]
    return len(best[0] & best[1]) / count if scores else 0.0


def _flat(fields: Any, prefix: str = "") -> Row:
    if not isinstance(fields, dict):
        raise ValueError(f"a row must be a mapping, but is {type(fields).__name__}")
    flat: Row = {}
    for name, value in fields.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat
