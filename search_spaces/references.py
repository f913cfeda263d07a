"""Published designs as candidates, by name: what a space's baseline and a relative constraint may speak of."""

from __future__ import annotations

from functools import cache

from pydantic import BaseModel, ConfigDict, Field

from search_spaces import catalogue
from search_spaces.candidate import Candidate
from search_spaces.catalogue import SpaceError
from search_spaces.reading import check, read_mapping


class Reference(BaseModel):
    """One published design, and how many parameters its publisher says that it has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: Candidate
    published_params: int = Field(gt=0, description="to the digits that are published")
    beyond: dict[str, int] = Field(default_factory=dict, description="counted there, and no part of this design")
    source: str


@cache
def references() -> dict[str, Reference]:
    """All of them, by name."""
    path = catalogue.COMPONENTS / "references.yaml"
    entries = read_mapping(path, SpaceError)
    return {name: check(fields, Reference, f"{path.name}: {name}", SpaceError) for name, fields in entries.items()}


def reference(name: str) -> Reference:
    """Raises: SpaceError with the near miss."""
    if name not in references():
        raise catalogue.unknown("reference design", name, list(references()))
    return references()[name]
