"""Which columns of a table are the truth and the parameter count, where nobody says; and rows by their values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from nas.errors import ConfigError
from search_spaces.reading import hint

Row = dict[str, Any]

TRUTHS = (
    *("truth", "valid_ppl", "val_ppl", "test_ppl", "ppl", "perplexity", "val_loss", "valid_loss", "test_loss", "loss"),
    *("accuracy", "acc", "test_accuracy", "test_acc", "val_accuracy", "val_acc", "valid_acc", "top1", "top_1"),
    *("top1_acc", "top_1_accuracy", "glue"),
)
PARAMS = (
    *("params", "nonembedding", "n_params", "num_params", "param_count", "non_embedding_params", "parameters"),
    *("num_parameters", "total_params", "params_m"),
)
LOWER = re.compile(r"ppl|perplex|loss|error|(?<![a-z])(err|wer|cer|nll|bpc|bpb|fid|mse|rmse)(?![a-z])", re.IGNORECASE)
RESULT = re.compile(rf"{LOWER.pattern}|(?<![a-z])acc|top_?1(?!\d)|bleu|glue", re.IGNORECASE)
COUNT = re.compile("params|parameters", re.IGNORECASE)
THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")


def number(value: Any) -> float | None:
    """A finite number, also one that a CSV holds as text: `0.5`, `76.1%` (76.1), `1,234,567`."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        value = value.strip().removesuffix("%")
        if THOUSANDS.fullmatch(value):
            value = value.replace(",", "")
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def leaf(name: str) -> str:
    """The last part of a dotted name as names are compared: `arch.Hidden-Dim` is hidden_dim."""
    return re.sub(r"[^a-z0-9]+", "_", name.rsplit(".", 1)[-1].lower()).strip("_")


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
    """(column, rows): as named, the mean over those that a pattern such as `accuracy.*` fits, or by name.

    Raises: ConfigError where the table does not say which of its columns is the truth.
    """
    if len(rows) < 2:
        raise ConfigError(f"a ranking needs two rows or more, but got {len(rows)}")
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
    varying = _varying(rows, known)
    found = _usual(varying, TRUTHS) or _only(varying, RESULT) or _usual(known, TRUTHS)
    if found is not None:
        return found, list(rows)
    raise ConfigError(f"which column is the trained result? name it by --truth; numeric columns: {', '.join(known)}")


def params_column(rows: Sequence[Row], wanted: str | None, counted: str | None) -> str:
    """As named, by a usual name, or the one that was counted from the configurations. Raises: ConfigError."""
    known = numeric_columns(rows)
    if wanted is not None:
        if wanted not in known:
            raise ConfigError(f"the table has no numeric column {wanted!r}; {hint(wanted, sorted(known), 'columns')}")
        return wanted
    varying = _varying(rows, known)
    found = _usual(varying, PARAMS) or counted or _only(varying, COUNT) or _usual(known, PARAMS)
    if found is None:
        raise ConfigError(
            f"which column counts parameters? name it by --params; numeric columns: {', '.join(known)} (no row holds a "
            "configuration to count them from)"
        )
    return found


def _usual(columns: Sequence[str], usual: Sequence[str]) -> str | None:
    """The column of the first usual name that only one has."""
    for wanted in usual:
        fitting = [name for name in columns if leaf(name) == wanted]
        if len(fitting) == 1:
            return fitting[0]
    return None


def _only(columns: Sequence[str], saying: re.Pattern[str]) -> str | None:
    """The one column whose name says so, if there is just one."""
    fitting = [name for name in columns if saying.search(leaf(name))]
    return fitting[0] if len(fitting) == 1 else None


def varies(values: Iterable[float | None]) -> bool:
    """Whether two of those that are known differ."""
    return len({*values} - {None}) >= 2


def _varying(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    return [name for name in columns if varies(number(row.get(name)) for row in rows)]


def falls(column: str) -> bool:
    """Whether less of the column is better, by its name."""
    return LOWER.search(column) is not None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def with_columns(rows: Sequence[Row], columns: Mapping[str, Sequence[float | None]]) -> list[Row]:
    """The rows with further columns; those that are there already stay."""
    return [{**{name: values[place] for name, values in columns.items()}, **row} for place, row in enumerate(rows)]
