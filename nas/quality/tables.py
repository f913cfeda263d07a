"""Tables of trained models as rows, from the files that people keep them in."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

from nas.errors import ConfigError
from nas.quality.columns import THOUSANDS, Row
from search_spaces.reading import unreadable

SEPARATORS = ",;\t|"
DECIMAL = re.compile(r"[+-]?\d+,\d+(e[+-]?\d+)?%?", re.IGNORECASE)


def read_table(path: Path) -> list[Row]:
    """Rows of a CSV, TSV, JSON (a list) or JSON-lines file; nested fields become dotted names. Raises: ConfigError."""
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise ConfigError(f"a table ends in {', '.join(READERS)}, but got {path.name!r}")
    try:
        rows = read(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(unreadable(path, error)) from error
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if not rows:
        raise ConfigError(f"the table {path} has no rows; it needs one a trained model")
    return rows


def _read_csv(text: str) -> list[Row]:
    """Separated by whichever of comma, semicolon, tab and bar stands most often in the header, or else by blanks.

    Where semicolons do it and some cell reads `0,5`, commas are those of decimals. A column without a name, as pandas
    writes for its index, is left out.
    """
    header = text.partition("\n")[0]
    most = max(SEPARATORS, key=header.count)
    separator = most if most in header else " "
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator == " ")
    names = [name.strip() for name in reader.fieldnames or ()]
    for name in filter(None, names):
        if names.count(name) > 1:
            raise ValueError(f"its header names {name!r} {names.count(name)} times; give each column its own name")
    rows = []
    for row in reader:
        if None in row:
            raise ValueError(f"line {reader.line_num} has more cells than the header")
        rows.append({name.strip(): value for name, value in row.items() if name.strip()})
    if separator == ";" and any(_is_decimal(cell) for row in rows for cell in row.values()):
        rows = [{name: _with_point(cell) for name, cell in row.items()} for row in rows]
    return rows


def _is_decimal(cell: Any) -> bool:
    """Whether its comma can only be that of a decimal: `0,5`, not `1,234`."""
    return isinstance(cell, str) and bool(DECIMAL.fullmatch(cell.strip())) and not THOUSANDS.fullmatch(cell.strip())


def _with_point(cell: Any) -> Any:
    return cell.replace(",", ".") if isinstance(cell, str) and DECIMAL.fullmatch(cell.strip()) else cell


def _read_json(text: str) -> list[Row]:
    """A list of rows, one list under a name, rows by name, or columns by name."""
    rows = json.loads(text)
    values = list(rows.values()) if isinstance(rows, dict) else []
    if len(values) == 1 and isinstance(values[0], list):
        rows = values[0]
    elif values and all(isinstance(one, dict) for one in values):
        return [{"name": name, **_flat(row)} for name, row in rows.items()]
    elif values and all(isinstance(one, list) and len(one) == len(values[0]) for one in values):
        return [_flat(dict(zip(rows, cells, strict=True))) for cells in zip(*values, strict=True)]
    if not isinstance(rows, list):
        raise ValueError("it must hold a list of rows, rows by name, or columns by name")
    return [_flat(row) for row in rows]


def _read_json_lines(text: str) -> list[Row]:
    rows = []
    for number_of_line, line in enumerate(text.split("\n"), 1):  # other line ends may stand inside of strings
        if line.strip():
            try:
                rows.append(_flat(json.loads(line)))
            except ValueError as error:
                raise ValueError(f"line {number_of_line}: {error}") from None
    return rows


def _flat(fields: Any, prefix: str = "") -> Row:
    if not isinstance(fields, dict):
        raise ValueError(f"a row must be a mapping, but is {type(fields).__name__}")
    flat: Row = {}
    for name, value in fields.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


READERS = {".csv": _read_csv, ".tsv": _read_csv, ".json": _read_json, ".jsonl": _read_json_lines}
