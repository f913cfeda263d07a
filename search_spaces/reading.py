"""Reads one YAML file into one checked record; a mistake becomes one line with rule, value and near miss."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MOST_BYTES = 2**24
Record = TypeVar("Record", bound=BaseModel)


class Loader(yaml.SafeLoader):
    """Plain values only; a key that a mapping holds twice is refused, where YAML's own loader takes the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if first := lines.get((key.tag, key.value)):
                raise ValueError(f"key {key.value!r} is given twice, in lines {first} and {line}; keep one of them")
            lines[key.tag, key.value] = line
        return node


def read_mapping(path: Path, error: type[Exception]) -> dict[str, Any]:
    """The mapping that a YAML file holds; anything else raises `error` with one line."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as cause:
        raise error(unreadable(path, cause)) from cause
    if len(text) > MOST_BYTES:
        raise error(f"{path} may have {MOST_BYTES} bytes, but has more; is it the right file?")
    fields = parse(text, str(path), error, _loader(path))
    if not isinstance(fields, dict):
        raise error(f"{path} must hold a mapping, but holds {type(fields).__name__}")
    return fields


def unreadable(path: Path, cause: Exception) -> str:
    """Why a file cannot be read, and the nearest name beside it where there is none."""
    if not isinstance(cause, FileNotFoundError):
        why = isinstance(cause, OSError) and cause.strerror
        return f"cannot read {path}: {why or ' '.join(str(cause).split())}; give a file that can be read"
    folder = path.absolute().parent
    beside = [one.stem for one in folder.glob("*") if one.suffix == path.suffix]
    near = difflib.get_close_matches(path.stem, beside, n=1)
    known = f"did you mean {str(path.with_stem(near[0]))!r}?" if near else "check its name and folder"
    return f"cannot read {path}: there is no such file in {folder}; {known}"


def _loader(path: Path) -> type[Any]:
    """libyaml's for what this program ships, seven times as fast; it has no bound on nesting, as users' files need."""
    own = path.resolve().is_relative_to(Path(__file__).parent)
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader) if own else Loader


def parse(text: str | bytes, where: str, error: type[Exception], loader: type[Any] = Loader) -> Any:
    """What a YAML text holds: plain values only. A mistake raises `error` with one line that names `where`."""
    try:
        return loader(text.decode("utf-8") if isinstance(text, bytes) else text).get_single_data()
    except RecursionError as cause:
        raise error(f"cannot read {where}: it is nested too deeply") from cause
    except (ValueError, OverflowError, TypeError, LookupError, AttributeError, yaml.YAMLError) as cause:
        raise error(f"cannot read {where}: {' '.join(str(cause).split())}") from cause


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
            lines.append(_rule(place, problem))
    return "; ".join(lines)


def _rule(place: str, problem: ErrorDetails) -> str:
    """The rule that a value breaks. Our own rules name key and value themselves, so that neither is said twice."""
    message, value = problem["msg"].removeprefix("Value error, "), problem["input"]
    if problem["type"] == "value_error":
        return message if not place or message.startswith(f"{place} ") else f"{place}: {message}"
    got = "" if isinstance(value, dict) else f" (got {_shown(value)})"
    names = re.findall("'([^']+)'", problem.get("ctx", {}).get("expected", ""))
    near = difflib.get_close_matches(value, names, n=1) if isinstance(value, str) else []
    return f"{place}: {message}{got}" + (f"; did you mean {near[0]!r}?" if near else "")


def _shown(value: object) -> str:
    """Short, however large or nested the value is."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 3, 120, 120
    return short.repr(value)
