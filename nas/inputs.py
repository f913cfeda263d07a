"""Inputs: the files of the user's own that a search names. A run keeps copies: it stays what it was, from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from nas.constraints import FORM

FOLDER = "inputs"
SUFFIXES = (".yaml", ".yml")


def each_file(fields: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """A search's fields with `change` of every file that they name in its place."""

    def changed(value: object) -> object:
        if isinstance(value, list):
            return [changed(one) for one in value]
        return change(value) if isinstance(value, str) and value.endswith(SUFFIXES) else value

    def reworded(text: Any) -> Any:
        found = FORM.match(text) if isinstance(text, str) else None
        name = found["reference"].strip('"') if found and found["reference"] else ""
        return text.replace(found["reference"], f'"{change(name)}"') if found and name.endswith(SUFFIXES) else text

    named = {name: changed(fields[name]) for name in ("space", "workload", "devices", "candidates") if name in fields}
    if isinstance(fields.get("constraints"), list):
        named["constraints"] = [reworded(text) for text in fields["constraints"]]
    return {**fields, **named}


def copies(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields with the names of copies, which begin with FOLDER, and the copies' texts by name."""
    names: dict[Path, str] = {}

    def copied(name: str) -> str:
        source = Path(name).resolve()
        same = sum(one.name == source.name for one in names if one != source)
        return names.setdefault(source, f"{FOLDER}/{source.stem}{f'-{same + 1}' if same else ''}{source.suffix}")

    found = each_file(fields, copied)
    return found, {name: source.read_text(encoding="utf-8") for source, name in names.items()}


def beside(fields: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What a file in `folder` names is sought there first, then from where the command is given."""
    return each_file(fields, lambda name: str(folder / name) if (folder / name).is_file() else name)


def fingerprints(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with each file's name and a digest of what it holds, so that copies are alike."""

    def fingerprint(name: str) -> str:
        file = Path(name)
        return f"{file.name} ({sha256(file.read_bytes()).hexdigest()[:8]})" if file.is_file() else name

    return each_file(fields, fingerprint)
