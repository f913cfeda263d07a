"""WHAT may be built: search spaces, candidates and the catalogue of components. Plain data and its reader; no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search_spaces.candidate import Candidate
from search_spaces.catalogue import SpaceError, unknown
from search_spaces.reading import check, read_mapping
from search_spaces.references import reference
from search_spaces.rules import buildable
from search_spaces.space import SearchSpace

__all__ = ["Candidate", "SearchSpace", "SpaceError", "load", "load_candidate", "names"]

SHIPPED = Path(__file__).parent


def names() -> list[str]:
    """Names of the shipped spaces."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load(name_or_path: str, overrides: dict[str, Any] | None = None) -> SearchSpace:
    """A shipped space by name, or the user's own YAML by path; `overrides` replaces axes, by axis name.

    Raises: SpaceError with rule, value and next step.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        if name_or_path not in names():
            raise unknown("space", name_or_path, names())
        path = SHIPPED / f"{name_or_path}.yaml"
    fields = read_mapping(path, SpaceError)
    if overrides and isinstance(fields.get("axes"), dict):
        fields["axes"] = {**fields["axes"], **overrides}
    return check(fields, SearchSpace, str(path), SpaceError)


def load_candidate(path: Path) -> Candidate:
    """A candidate from its YAML file, checked for what can be built at all; or a published design by its bare name.

    Raises: SpaceError.
    """
    if path.suffix not in {".yaml", ".yml"} and len(path.parts) == 1:
        return reference(str(path)).candidate
    candidate = check(read_mapping(path, SpaceError), Candidate, str(path), SpaceError)
    problem = buildable(candidate)
    if problem:
        raise SpaceError(f"{path}: {problem}")
    return candidate
