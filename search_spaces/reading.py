"""Reads one YAML file into one checked record; a mistake becomes one line with rule, value and near miss."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

Record = TypeVar("Record", bound=BaseModel)


def read_mapping(path: Path, error: type[Exception]) -> dict[str, Any]:
    """The mapping that a YAML file holds; anything else raises `error` with one line."""
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as cause:
        raise error(f"cannot read {path}: {' '.join(str(cause).split())}") from cause
    if not isinstance(fields, dict):
        raise error(f"{path} must hold a mapping, but holds {type(fields).__name__}")
    return fields


def check(fields: dict[str, Any], record: type[Record], where: str, error: type[Exception]) -> Record:
    """`fields` as a checked record; a mistake raises `error` with one line that starts with `where`."""
    try:
        return record.model_validate(fields)
    except ValidationError as cause:
        raise error(f"{where}: {describe(cause, record)}") from cause


def hint(name: str, known: Collection[str], otherwise: str = "known") -> str:
    """The nearest known name, or all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"{otherwise}: {', '.join(known)}"


def describe(error: ValidationError, record: type[BaseModel]) -> str:
    """Which key, which rule, which value; unknown keys name the nearest known one."""
    lines = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key {place!r}; {hint(str(problem['loc'][-1]), record.model_fields, 'known keys')}")
        elif problem["type"] == "missing":
            lines.append(f"key {place!r} is missing")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            shown = "" if not place else f"{place}: "
            value = "" if isinstance(problem["input"], dict) else f" (got {problem['input']!r})"
            lines.append(f"{shown}{message}{value}")
    return "; ".join(lines)
