"""Which columns of a table are the truth and the parameter count, where nobody says; and rows by their values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from nas.errors import ConfigError
from search_spaces.reading import hint

Row = dict[str, Any]

TRUTHS = ("truth", "valid_ppl", "val_ppl", "ppl", "perplexity", "val_loss", "valid_loss", "accuracy", "acc", "glue")
PARAMS = ("params", "nonembedding", "n_params", "num_params", "param_count", "non_embedding_params")
LOWER = re.compile(r"ppl|perplex|loss|error|\bwer\b", re.IGNORECASE)


def number(value: Any) -> float | None:
    """A finite number, also one that a CSV holds as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def numeric_columns(rows: Sequence[Row]) -> list[str]:
    """Names of columns with two numbers or more, in the order of the table."""
    names = dict.fromkeys(key for row in rows for key in row)
    return [name for name in names if sum(number(row.get(name)) is not None for row in rows) >= 2]


def where(rows: Sequence[Row], conditions: Sequence[str]) -> list[Row]:
    """Rows for which every `column=value` holds. Raises: ConfigError for none."""
    kept = list(rows)
    for condition in conditions:
        name, sign, value = condition.partition("=")
        if not sign:
            raise ConfigError(f"--where must read column=value, but got {condition!r}")
        if not any(name in row for row in rows):
            raise ConfigError(
                f"the table has no column {name!r}; {hint(name, sorted({k for r in rows for k in r}), 'columns')}"
            )
        kept = [row for row in kept if str(row.get(name)) == value]
    if not kept:
        raise ConfigError(f"no row of the table has {' and '.join(conditions) or 'anything'}; look at its columns")
    return kept


def truth_column(rows: Sequence[Row], wanted: str | None) -> tuple[str, list[Row]]:
    """(column, rows that have it): as named, the mean over those that a pattern such as `accuracy.*` fits, or by name.

    Raises: ConfigError where the table does not say which of its columns is the truth.
    """
    known = numeric_columns(rows)
    if wanted is not None and "*" in wanted:
        fitting = [name for name in known if fnmatchcase(name, wanted)]
        if not fitting:
            raise ConfigError(f"--truth {wanted!r} fits no numeric column; known: {', '.join(known)}")
        name = f"mean of {wanted}"
        return name, [{**row, name: _mean([number(row.get(one)) for one in fitting])} for row in rows]
    if wanted is not None:
        if wanted not in known:
            raise ConfigError(f"the table has no numeric column {wanted!r}; {hint(wanted, sorted(known), 'columns')}")
        return wanted, list(rows)
    for leaf in TRUTHS:
        fitting = [name for name in known if name.rsplit(".", 1)[-1].lower() == leaf]
        if len(fitting) == 1:
            return fitting[0], list(rows)
    raise ConfigError(f"which column is the trained result? name it by --truth; numeric columns: {', '.join(known)}")


def params_column(rows: Sequence[Row], wanted: str | None, counted: str | None) -> str:
    """As named, by a usual name, or the one that was counted from the configurations. Raises: ConfigError."""
    known = numeric_columns(rows)
    if wanted is not None:
        if wanted not in known:
            raise ConfigError(f"the table has no numeric column {wanted!r}; {hint(wanted, sorted(known), 'columns')}")
        return wanted
    for leaf in PARAMS:
        fitting = [name for name in known if name.rsplit(".", 1)[-1].lower() == leaf]
        if len(fitting) == 1:
            return fitting[0]
    if counted is None:
        raise ConfigError(
            f"which column counts parameters? name it by --params; numeric columns: {', '.join(known)} (no row holds a "
            "configuration to count them from)"
        )
    return counted


def falls(column: str) -> bool:
    """Whether less of the column is better, by its name."""
    return LOWER.search(column) is not None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def with_columns(rows: Sequence[Row], columns: Mapping[str, Sequence[float | None]]) -> list[Row]:
    """The rows with further columns; those that are there already stay."""
    return [{**{name: values[place] for name, values in columns.items()}, **row} for place, row in enumerate(rows)]
