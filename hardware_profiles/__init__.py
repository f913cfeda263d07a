"""WHERE it runs: one device and compute unit a profile. Plain data and its reader; no torch."""

from __future__ import annotations

import difflib
import reprlib
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hardware_profiles.detect import detect, detect_gpus
from hardware_profiles.profile import Calibration, HardwareProfile, ProfileError

__all__ = ["HardwareProfile", "ProfileError", "calibrated", "detect", "detect_gpus", "dump", "load", "names"]

SHIPPED = Path(__file__).parent
LOCAL = "local"


class _Loader(yaml.SafeLoader):
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


def names() -> list[str]:
    """Names of the shipped profiles."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load(name_or_path: str) -> HardwareProfile:
    """`local` = this machine; a shipped profile by name; or the user's own YAML by path. Raises: ProfileError."""
    if name_or_path == LOCAL:
        return detect()
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        if name_or_path not in names():
            near = difflib.get_close_matches(name_or_path, [*names(), LOCAL], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {LOCAL}, {', '.join(names())}"
            raise ProfileError(
                f"no device named {name_or_path!r}; {hint} (`nas devices detect --write FILE` makes one)"
            )
        path = SHIPPED / f"{name_or_path}.yaml"
    try:
        fields = _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except FileNotFoundError as error:
        raise ProfileError(
            f"cannot read {path}: there is no such file; `nas devices detect --write {path}` makes one of this machine"
        ) from error
    except RecursionError as error:
        raise ProfileError(f"cannot read {path}: it is nested too deeply") from error
    except (OSError, ValueError, OverflowError, TypeError, LookupError, AttributeError, yaml.YAMLError) as error:
        raise ProfileError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(fields, dict):
        raise ProfileError(f"{path} must hold a mapping, but holds {type(fields).__name__}")
    try:
        return HardwareProfile.model_validate(fields)
    except ValidationError as error:
        raise ProfileError(f"{path}: {_describe(error)}") from error


def calibrated(profile: HardwareProfile, entry: Calibration) -> HardwareProfile:
    """The profile with what was measured of it, in place of an earlier entry of the same runtime, dtype and threads.

    Raises: ProfileError where a peak or bandwidth of the profile does not fit what was measured.
    """

    def what(one: Calibration) -> tuple[object, ...]:
        return one.runtime, one.dtype, one.threads

    kept = [one for one in profile.calibration if what(one) != what(entry)]
    fields = profile.model_dump(mode="json", by_alias=True)
    fields["calibration"] = [one.model_dump(mode="json") for one in (*kept, entry)]
    try:
        return HardwareProfile.model_validate(fields)
    except ValidationError as error:
        raise ProfileError(f"device {profile.id}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error


def dump(profile: HardwareProfile) -> str:
    """The profile as YAML that `load` reads back."""
    return yaml.safe_dump(profile.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)


def _describe(error: ValidationError) -> str:
    known = _keys(HardwareProfile.model_json_schema(by_alias=True))
    lines = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(problem["loc"][-1]), sorted(known), n=1)
            lines.append(f"unknown key {place!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        elif problem["type"] == "missing":
            lines.append(f"key {place!r} is missing")
        else:
            lines.append(f"{place}: {problem['msg']} (got {_shown(problem['input'])})")
    return "; ".join(lines)


def _keys(schema: Any) -> set[str]:
    """Every property name of a JSON Schema."""
    if isinstance(schema, list):
        return set().union(*map(_keys, schema))
    if not isinstance(schema, dict):
        return set()
    own = set(schema.get("properties", {})) if isinstance(schema.get("properties"), dict) else set()
    return own.union(*map(_keys, schema.values()))


def _shown(value: object) -> str:
    """Short, however large or nested the value is."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 3, 120, 120
    return short.repr(value)
