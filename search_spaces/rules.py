"""Rules as data: what may be combined with what. Those of `components/rules.yaml` hold in every space."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property

from pydantic import BaseModel, ConfigDict, Field, model_validator

from search_spaces import catalogue
from search_spaces.candidate import Candidate
from search_spaces.catalogue import SpaceError
from search_spaces.reading import check, read_mapping
from search_spaces.sizes import DERIVED, Value, deciding_axes, derive

REQUIRED = ("encoder", "resolution", "projector", "compression_factor", "compression", "lm", "lm_depth")
# The order in which axes are decided: those that rules join stand near each other, which keeps tables of them small.
ORDER = (
    "encoder", "resolution", "second_encoder", "fusion", "tiling", "tiles", "temporal_factor", "projector",
    "compression_factor", "compression", "encoder_depth", "lm", "lm_depth", "prune_layer", "lm_layers", "lm_ffn",
    "lm_heads", "lm_experts", "lm_weights", "kv_cache", "attention",
)  # fmt: skip
LAYER_RULES = ("uniform", "first", "influence", "calibration")


class Rule(BaseModel):
    """What must hold `when` these values are there, `unless` those are.

    One of: `require` (only these values), `forbid` (none of these), `divides` (the first size divides the second),
    `at_most` (the first size is not above the second). Every name is an axis or a derived size (`search_spaces.sizes`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    when: dict[str, list[Value]] = Field(default_factory=dict)
    unless: dict[str, list[Value]] = Field(default_factory=dict)
    require: dict[str, list[Value]] = Field(default_factory=dict)
    forbid: dict[str, list[Value]] = Field(default_factory=dict)
    divides: tuple[str, str] | None = None
    at_most: tuple[str, str] | None = None

    @model_validator(mode="after")
    def _known_names(self) -> Rule:
        for name in self.names:
            if name not in ORDER and name not in DERIVED:
                raise catalogue.unknown("axis or derived size", name, [*ORDER, *DERIVED])
        if sum(map(bool, (self.require, self.forbid, self.divides, self.at_most))) != 1:
            raise ValueError(f"rule {self.name!r} must have one of 'require', 'forbid', 'divides' and 'at_most'")
        return self

    @cached_property
    def names(self) -> list[str]:
        """The axes and derived sizes that this rule speaks of."""
        sizes = (*(self.divides or ()), *(self.at_most or ()))
        return list(dict.fromkeys([*self.when, *self.unless, *self.require, *self.forbid, *sizes]))

    @cached_property
    def reads(self) -> frozenset[str]:
        """The axes that decide this rule."""
        return frozenset(axis for name in self.names for axis in deciding_axes(name))

    def describe(self, values: Mapping[str, Value]) -> str:
        """The axes and derived sizes that decide this rule, with their values."""
        axes = {name: values[name] for name in ORDER if name in self.reads}
        derived = {name: derive(name, values) for name in self.names if name in DERIVED}
        return ", ".join(f"{name}={value}" for name, value in (axes | derived).items())

    def holds(self, values: Mapping[str, Value]) -> bool:
        """Whether a combination that has every axis of `reads` keeps this rule."""
        return self.verdict({name: derive(name, values) for name in self.names})

    def verdict(self, named: Mapping[str, Value]) -> bool:
        """Whether the rule holds for these values of its `names`."""

        def among(allowed: Mapping[str, list[Value]]) -> bool:
            return all(named[name] in some for name, some in allowed.items())

        if not among(self.when) or (self.unless and among(self.unless)):
            return True
        if self.divides:
            divisor, number = (int(named[name]) for name in self.divides)
            return divisor != 0 and number % divisor == 0
        if self.at_most:
            size, limit = (int(named[name]) for name in self.at_most)
            return size <= limit
        return among(self.require) and not any(named[name] in some for name, some in self.forbid.items())


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
    if candidate.second_encoder != "none":
        catalogue.encoder(candidate.second_encoder)
    published = catalogue.language_model(candidate.lm)
    layers = published.layers
    if candidate.lm_depth > layers:
        return f"lm_depth must be in 1..{layers} for {candidate.lm}, but got {candidate.lm_depth}"
    if candidate.lm_layers not in LAYER_RULES:
        return f"lm_layers must be one of {', '.join(LAYER_RULES)}, but got {candidate.lm_layers!r}"
    try:
        published.resized(candidate.lm_ffn, candidate.lm_heads, candidate.lm_experts)
    except SpaceError as error:
        return str(error)
    return broken(building_rules(), candidate)


def broken(rules: tuple[Rule, ...], candidate: Candidate) -> str | None:
    """The first rule that a candidate breaks, with the values it reads, or None."""
    values = candidate.to_dict()
    for rule in rules:
        if not rule.holds(values):
            return f"{rule.name}, but got {rule.describe(values)}"
    return None
