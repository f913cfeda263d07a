"""Tables of trained models, and how each of their columns ranks them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nas.errors import ConfigError
from nas.quality.agreement import agreement, agreement_at_equal_cost
from search_spaces.reading import hint

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ranking:
    """How one column agrees with the truth: over all rows that have both, and at equal parameters."""

    name: str
    n: int
    tau: float | None
    rho: float | None
    tau_equal_params: float | None
    pairs_equal_params: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_table(path: Path) -> list[Row]:
    """Rows of a CSV or JSON-lines file; nested fields become dotted names. Raises: ConfigError."""
    if path.suffix not in {".csv", ".jsonl"}:
        raise ConfigError(f"a table ends in .csv or .jsonl, but got {path.name!r}")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix == ".csv":
                return [dict(row) for row in csv.DictReader(file)]
            return [_flat(json.loads(line)) for line in file if line.strip()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error


def compare(rows: Sequence[Row], *, truth: str, params: str, lower_is_better: bool = False) -> list[Ranking]:
    """The params baseline first, then every other numeric column, strongest tau first. Raises: ConfigError."""
    columns = {
        name: [_number(row.get(name)) for row in rows] for name in dict.fromkeys(key for row in rows for key in row)
    }
    numeric = {name: values for name, values in columns.items() if sum(value is not None for value in values) >= 2}
    for wanted in (truth, params):
        if wanted not in numeric:
            known = hint(wanted, sorted(numeric), "numeric columns")
            raise ConfigError(f"the table has no numeric column {wanted!r}; {known}")
    sign = -1 if lower_is_better else 1
    result = [value if value is None else sign * value for value in numeric.pop(truth)]
    rankings = [_rank(name, values, result, numeric[params]) for name, values in numeric.items()]
    return sorted(rankings, key=lambda one: (one.name != params, -abs(one.tau or 0), one.name))


def _rank(name: str, values: list[float | None], truth: list[float | None], params: list[float | None]) -> Ranking:
    known = [
        (value, result, size)
        for value, result, size in zip(values, truth, params, strict=True)
        if value is not None and result is not None and size is not None
    ]
    scores, results, sizes = ([row[column] for row in known] for column in range(3))
    whole = agreement(scores, results)
    band = agreement_at_equal_cost(scores, results, sizes)
    return Ranking(name, whole.n, whole.kendall_tau, whole.spearman_rho, band.kendall_tau, band.pairs)


def _flat(fields: Any, prefix: str = "") -> Row:
    if not isinstance(fields, dict):
        raise ValueError(f"a row must be a mapping, but is {type(fields).__name__}")
    flat: Row = {}
    for name, value in fields.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
