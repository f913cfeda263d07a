"""Rules as data: what may be combined with what. Those of `components/rules.yaml` hold in every space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache, cached_property

from pydantic import BaseModel, ConfigDict, Field, model_validator

from search_spaces import catalogue
from search_spaces.candidate import Candidate
from search_spaces.catalogue import SpaceError
from search_spaces.reading import check, read_mapping

Value = str | int
# The order in which axes are decided. A rule is checked as soon as every axis that it reads is known.
ORDER = ("encoder", "resolution", "projector", "compression_factor", "compression", "lm", "lm_depth")
DERIVED: dict[str, tuple[str, ...]] = {
    "encoder_stride": ("encoder",),
    "grid_side": ("encoder", "resolution"),
    "block_side": ("compression_factor",),
}


LAYER_RULES = ("uniform",)


class Rule(BaseModel):
    """`when` these axis values, `require` those; or: the first size must divide the second."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    when: dict[str, list[Value]] = Field(default_factory=dict)
    require: dict[str, list[Value]] = Field(default_factory=dict)
    divides: tuple[str, str] | None = None

    @model_validator(mode="after")
    def _known_names(self) -> Rule:
        for name in (*self.when, *self.require):
            if name not in ORDER:
                raise catalogue.unknown("axis", name, list(ORDER))
        for name in self.divides or ():
            if name not in (*ORDER, *DERIVED):
                raise catalogue.unknown("axis or derived size", name, [*ORDER, *DERIVED])
        if bool(self.require) == bool(self.divides):
            raise ValueError(f"rule {self.name!r} must have either 'require' or 'divides'")
        return self

    @cached_property
    def reads(self) -> frozenset[str]:
        """The axes that decide this rule."""
        axes = {*self.when, *self.require}
        for name in self.divides or ():
            axes.update(DERIVED.get(name, (name,)))
        return frozenset(axes)

    def describe(self, values: Mapping[str, Value]) -> str:
        """The axes and derived sizes that decide this rule, with their values."""
        axes = {name: values[name] for name in ORDER if name in self.reads}
        derived = {name: derive(name, values) for name in self.divides or () if name in DERIVED}
        return ", ".join(f"{name}={value}" for name, value in (axes | derived).items())

    def holds(self, values: Mapping[str, Value]) -> bool:
        """Whether a combination that has every axis of `reads` keeps this rule."""
        if any(values[axis] not in allowed for axis, allowed in self.when.items()):
            return True
        if self.divides:
            divisor, number = (derive(name, values) for name in self.divides)
            return number % divisor == 0
        return all(values[axis] in allowed for axis, allowed in self.require.items())


def derive(name: str, values: Mapping[str, Value]) -> int:
    """A size that rules speak of: an integer axis, the encoder's stride, the token grid, or the merged block."""
    if name == "encoder_stride":
        return catalogue.encoder(str(values["encoder"])).stride
    if name == "grid_side":
        return catalogue.encoder(str(values["encoder"])).grid_side(int(values["resolution"]))
    if name == "block_side":
        return math.isqrt(int(values["compression_factor"]))
    return int(values[name])


class _RuleFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[Rule, ...]


@cache
def building_rules() -> tuple[Rule, ...]:
    """What can be built at all, whatever the space."""
    path = catalogue.COMPONENTS / "rules.yaml"
    return check(read_mapping(path, SpaceError), _RuleFile, path.name, SpaceError).rules


def buildable(candidate: Candidate) -> str | None:
    """Why a candidate cannot be built, whatever the space, or None. Raises: SpaceError for an unknown component."""
    catalogue.find_operator("projector", candidate.projector, catalogue.projectors())
    catalogue.find_operator("token compression", candidate.compression, catalogue.compressors())
    layers = catalogue.language_model(candidate.lm).layers
    if candidate.lm_depth > layers:
        return f"lm_depth must be in 1..{layers} for {candidate.lm}, but got {candidate.lm_depth}"
    if candidate.lm_layers not in LAYER_RULES:
        return f"lm_layers must be one of {', '.join(LAYER_RULES)}, but got {candidate.lm_layers!r}"
    if math.isqrt(candidate.compression_factor) ** 2 != candidate.compression_factor:
        return f"compression_factor must be a square number, but got {candidate.compression_factor}"
    return broken(building_rules(), candidate)


def broken(rules: tuple[Rule, ...], candidate: Candidate) -> str | None:
    """The first rule that a candidate breaks, with the values it reads, or None."""
    values = candidate.to_dict()
    for rule in rules:
        if not rule.holds(values):
            return f"{rule.name}, but got {rule.describe(values)}"
    return None
