"""SearchSpace: the axes, their rules as data, and what may be drawn from them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from search_spaces import catalogue
from search_spaces.candidate import Candidate
from search_spaces.catalogue import SpaceError

Value = str | int
# The order in which axes are decided. A rule is checked as soon as every axis that it reads is known.
ORDER = ("encoder", "resolution", "projector", "compression_factor", "compression", "lm", "lm_depth")
DERIVED: dict[str, tuple[str, ...]] = {
    "encoder_stride": ("encoder",),
    "grid_side": ("encoder", "resolution"),
    "block_side": ("compression_factor",),
}


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


class SearchSpace(BaseModel):
    """What may be built. Axes are ordered lists; every candidate keeps every rule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = ""
    axes: dict[str, list[Value]]
    rules: list[Rule] = Field(default_factory=list)
    baseline: dict[str, Value]
    constraints: list[str] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _expand_ranges(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("axes"), dict):
            return data
        axes = {name: _expand(name, axis) for name, axis in data["axes"].items()}
        return {**data, "axes": axes}

    @model_validator(mode="after")
    def _check(self) -> SearchSpace:
        for axis in self.axes:
            if axis not in ORDER:
                raise catalogue.unknown("axis", axis, list(ORDER))
        missing = [axis for axis in ORDER if axis not in self.axes]
        if missing:
            raise ValueError(f"axes must name every one of {', '.join(ORDER)}; missing: {', '.join(missing)}")
        _check_values(self.axes)
        problem = self.explain(self.baseline_candidate)
        if problem and "is not among" not in problem:
            raise ValueError(f"the baseline breaks a rule: {problem}")
        if not self.size:
            raise ValueError("no combination of the axes keeps every rule")
        return self

    @property
    def baseline_candidate(self) -> Candidate:
        """The reference design that relative constraints speak of."""
        return Candidate.model_validate(self.baseline)

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every valid candidate once, in axis order."""
        return tuple(Candidate.model_validate(values) for values in self._walk({}, 0))

    @property
    def size(self) -> int:
        return len(self.candidates)

    @cached_property
    def _keys(self) -> frozenset[str]:
        return frozenset(candidate.key for candidate in self.candidates)

    def __contains__(self, candidate: Candidate) -> bool:
        return candidate.key in self._keys

    def explain(self, candidate: Candidate) -> str | None:
        """Why a candidate is not of this space, or None."""
        values = candidate.to_dict()
        for axis in ORDER:
            if values[axis] not in self.axes[axis]:
                return f"{axis}={values[axis]!r} is not among {self.axes[axis]}"
        for rule in self.rules:
            if not rule.holds(values):
                return f"{rule.name}: {candidate}"
        return None

    def decode(self, values: Mapping[str, Value]) -> Candidate:
        """The valid candidate nearest to any combination of axis values; a valid one comes back unchanged.

        Axis by axis, a value that the earlier choices rule out moves to the nearest allowed one in declared order.
        """
        chosen: dict[str, Value] = {}
        for index, axis in enumerate(ORDER):
            allowed = [value for value in self.axes[axis] if self._reachable({**chosen, axis: value}, index + 1)]
            place = self.axes[axis].index(values[axis])
            chosen[axis] = min(allowed, key=lambda value: abs(self.axes[axis].index(value) - place))
        return Candidate.model_validate(chosen)

    def sample(self, generator: random.Random) -> Candidate:
        """One valid candidate, uniformly."""
        return generator.choice(self.candidates)

    def neighbours(self, candidate: Candidate) -> list[Candidate]:
        """Valid candidates one step away along one axis (after snapping the others)."""
        values = candidate.to_dict()
        found: dict[str, Candidate] = {}
        for axis in ORDER:
            place = self.axes[axis].index(values[axis])
            for step in (-1, 1):
                if 0 <= place + step < len(self.axes[axis]):
                    near = self.decode({**values, axis: self.axes[axis][place + step]})
                    found[near.key] = near
        found.pop(candidate.key, None)
        return list(found.values())

    def _walk(self, chosen: dict[str, Value], index: int) -> Iterator[dict[str, Value]]:
        if index == len(ORDER):
            yield chosen
            return
        for value in self.axes[ORDER[index]]:
            longer = {**chosen, ORDER[index]: value}
            if self._keeps_rules(longer, ORDER[index]):
                yield from self._walk(longer, index + 1)

    def _reachable(self, chosen: dict[str, Value], index: int) -> bool:
        """Whether a partial choice can be completed."""
        return self._keeps_rules(chosen, ORDER[index - 1]) and next(self._walk(chosen, index), None) is not None

    def _keeps_rules(self, chosen: Mapping[str, Value], newest: str) -> bool:
        known = frozenset(chosen)
        return all(rule.holds(chosen) for rule in self.rules if newest in rule.reads and rule.reads <= known)


def _expand(name: str, axis: Any) -> Any:
    """An axis as a list; {low, high, step} is an integer range with both ends."""
    if not isinstance(axis, dict):
        return axis
    unknown = set(axis) - {"low", "high", "step"}
    if unknown or "low" not in axis or "high" not in axis:
        raise ValueError(f"axis {name!r} must be a list or {{low, high, step}}, but got {axis}")
    if not all(isinstance(value, int) for value in axis.values()) or axis.get("step", 1) < 1:
        raise ValueError(f"axis {name!r}: low, high and step must be integers with step >= 1, but got {axis}")
    return list(range(axis["low"], axis["high"] + 1, axis.get("step", 1)))


def _check_values(axes: Mapping[str, Sequence[Value]]) -> None:
    """Every value is of the catalogue or of the right kind, and none stands twice."""
    tables = {
        "encoder": ("encoder", catalogue.encoders()),
        "projector": ("projector", catalogue.projectors()),
        "compression": ("token compression", catalogue.compressors()),
        "lm": ("language model", catalogue.language_models()),
    }
    for axis, values in axes.items():
        if not values or len(set(values)) != len(values):
            raise ValueError(f"axis {axis!r} must list at least one value and none twice, but got {list(values)}")
        for value in values:
            if axis in tables:
                kind, table = tables[axis]
                if value not in table:
                    raise catalogue.unknown(kind, str(value), list(table))
            elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"axis {axis!r} must hold positive integers, but got {value!r}")
    for factor in axes["compression_factor"]:
        if math.isqrt(int(factor)) ** 2 != factor:
            raise ValueError(f"compression_factor must be a square number, but got {factor}")
    deepest = min(catalogue.language_model(str(name)).layers for name in axes["lm"])
    for depth in axes["lm_depth"]:
        if int(depth) > deepest:
            raise SpaceError(f"lm_depth must be in 1..{deepest}, but got {depth}")
