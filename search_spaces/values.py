"""What may stand on an axis of a space: names of the catalogue or of a choice, and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import get_args

from search_spaces import catalogue
from search_spaces.candidate import Candidate
from search_spaces.catalogue import SpaceError
from search_spaces.rules import LAYER_RULES
from search_spaces.sizes import Value

# Components whose look-up also knows names outside of the catalogue.
LOOKED_UP: dict[str, Callable[[str], object]] = {
    "encoder": catalogue.encoder,
    "second_encoder": lambda name: name == "none" or catalogue.encoder(name),
    "lm": catalogue.language_model,
}


def check_values(axes: Mapping[str, Sequence[Value]]) -> None:
    """Every value is of the catalogue or of the right kind, and none stands twice. Raises: SpaceError, ValueError."""
    for axis, values in axes.items():
        if not values or len(set(values)) != len(values):
            raise ValueError(f"axis {axis!r} must list at least one value and none twice, but got {list(values)}")
        for value in values:
            _check(axis, value)
    deepest = max(catalogue.language_model(str(name)).layers for name in axes["lm"])
    for depth in axes["lm_depth"]:
        if int(depth) > deepest:
            raise SpaceError(f"lm_depth must be in 1..{deepest}, but got {depth}")


def _check(axis: str, value: Value) -> None:
    if axis in LOOKED_UP:
        LOOKED_UP[axis](str(value))
    elif names := _names(axis):
        if value not in names[1]:
            raise catalogue.unknown(names[0], str(value), names[1])
    else:
        least = 0 if Candidate.model_fields[axis].default == 0 else 1
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            kind = "integers from 0" if least == 0 else "positive integers"
            raise ValueError(f"axis {axis!r} must hold {kind}, but got {value!r}")


def _names(axis: str) -> tuple[str, list[str]] | None:
    """What the values of an axis of names are called, and the names; None for an axis of numbers."""
    listed = {
        "projector": ("projector", list(catalogue.projectors())),
        "compression": ("token compression", list(catalogue.compressors())),
        "lm_layers": ("layer rule", list(LAYER_RULES)),
    }
    choices = get_args(Candidate.model_fields[axis].annotation)
    return (axis, list(choices)) if choices else listed.get(axis)
