"""SearchSpace: the axes, their rules as data, and what may be drawn from them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from search_spaces import catalogue
from search_spaces.candidate import Candidate
from search_spaces.catalogue import SpaceError
from search_spaces.numbering import Codes, Numbering
from search_spaces.reading import check
from search_spaces.references import reference
from search_spaces.rules import ORDER, REQUIRED, Rule, broken, buildable, building_rules
from search_spaces.sizes import Value
from search_spaces.values import check_values

MOST_ENUMERATED = 200_000
SURVEYED = 20_000


class SearchSpace(BaseModel):
    """What may be built. Axes are ordered lists; every candidate keeps every rule.

    `axes` holds what the space declares: the seven that each must, and of the others those it wants. An axis that is
    not declared stays at the candidate's default. `baseline` may be the name of a published design.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = ""
    axes: dict[str, list[Value]]
    rules: list[Rule] = Field(default_factory=list)
    baseline: dict[str, Value]
    constraints: list[str] = Field(default_factory=list)
    workload: str = Field(default="vqa-short", description="what is asked, where a search does not say: name or file")

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthands(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("axes"), dict):
            return data
        data = {**data, "axes": {name: _expand(name, axis) for name, axis in data["axes"].items()}}
        if isinstance(data.get("baseline"), str):
            data["baseline"] = reference(data["baseline"]).candidate.model_dump(exclude_defaults=True)
        return data

    @model_validator(mode="after")
    def _check(self) -> SearchSpace:
        for axis in self.axes:
            if axis not in ORDER:
                raise catalogue.unknown("axis", axis, list(ORDER))
        missing = [axis for axis in REQUIRED if axis not in self.axes]
        if missing:
            raise ValueError(f"axes must name every one of {', '.join(REQUIRED)}; missing: {', '.join(missing)}")
        check_values(self.axes)
        problem = buildable(self.baseline_candidate) or broken(tuple(self.rules), self.baseline_candidate)
        if problem:
            raise ValueError(f"the baseline cannot be built: {problem}")
        if not self.size:
            raise ValueError("no combination of the axes keeps every rule")
        return self

    @property
    def baseline_candidate(self) -> Candidate:
        """The reference design that relative constraints speak of."""
        return check(dict(self.baseline), Candidate, "baseline", SpaceError)

    @cached_property
    def all_rules(self) -> tuple[Rule, ...]:
        """What can be built at all, then the space's own rules."""
        return (*building_rules(), *self.rules)

    @cached_property
    def domains(self) -> dict[str, list[Value]]:
        """The values of every axis in the order of decision; one, its default, where the space does not declare it."""
        return {axis: self.axes.get(axis) or [Candidate.model_fields[axis].default] for axis in ORDER}

    @cached_property
    def numbering(self) -> Numbering:
        """Every valid combination by its number, in axis order."""
        return Numbering(self.domains, self.all_rules)

    @property
    def size(self) -> int:
        """How many valid candidates there are, exactly; they are not walked for it."""
        return self.numbering.size

    @property
    def enumerable(self) -> bool:
        """Whether all candidates may be held in memory."""
        return self.size <= MOST_ENUMERATED

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every valid candidate once, in axis order. Raises: SpaceError where they are too many."""
        if not self.enumerable:
            raise SpaceError(
                f"{self.name} has {self.size:,} candidates, more than the {MOST_ENUMERATED:,} that are enumerated; "
                f"draw some of them"
            )
        return self.numbered(range(self.size))

    @cached_property
    def survey(self) -> tuple[Candidate, ...]:
        """Every candidate where they can be enumerated, else SURVEYED of them, always the same."""
        return self.candidates if self.enumerable else self.numbered(self._survey_numbers)

    @cached_property
    def _survey_numbers(self) -> list[int]:
        return self.draw_numbers(SURVEYED, random.Random(0))

    @cached_property
    def survey_codes(self) -> Codes:
        """The places of the values of `survey` on the axes: (candidates, axes)."""
        return self.numbering.codes(range(self.size) if self.enumerable else self._survey_numbers)

    @property
    def extent(self) -> str:
        """How many candidates there are and, where not all are looked at, how many of them are."""
        drawn = "" if self.enumerable else f", of which a fixed draw of {SURVEYED:,} is looked at"
        return f"{self.size:,} candidates{drawn}"

    def surveyed(self, values: Mapping[str, Value]) -> Candidate:
        """The candidate of `survey` nearest to any combination of axis values.

        Where the survey is a draw: the one that differs in the fewest names and by the fewest steps of numbers.
        """
        if self.enumerable:
            return self.decode(values)
        wanted = np.array([self._place(axis, values) for axis in self.domains])
        lengths = np.array([len(domain) if isinstance(domain[0], int) else 2 for domain in self.domains.values()])
        apart = np.minimum(np.abs(self.survey_codes - wanted) / np.maximum(lengths - 1, 1), 1)
        return self.survey[int(np.argmin(apart.sum(axis=1)))]

    def draw(self, count: int, generator: random.Random) -> tuple[Candidate, ...]:
        """`count` distinct candidates, uniformly; all of them where the space has no more."""
        return self.numbered(self.draw_numbers(count, generator))

    def draw_numbers(self, count: int, generator: random.Random) -> list[int]:
        """The numbers of `count` distinct candidates, uniformly."""
        if 2 * count > self.size:
            return generator.sample(range(self.size), min(count, self.size))
        numbers: dict[int, None] = {}
        while len(numbers) < count:
            numbers[generator.randrange(self.size)] = None
        return list(numbers)

    def numbered(self, numbers: Sequence[int]) -> tuple[Candidate, ...]:
        domains = list(self.domains.values())
        axes = list(self.domains)
        return tuple(
            Candidate.model_validate(
                {axis: values[code] for axis, values, code in zip(axes, domains, row, strict=True)}
            )
            for row in self.numbering.codes(numbers).tolist()
        )

    def __contains__(self, candidate: Candidate) -> bool:
        fields = candidate.to_dict()
        chosen: list[int] = []
        for axis, values in self.domains.items():
            code = values.index(fields[axis]) if fields[axis] in values else None
            if code is None or code not in self.numbering.allowed(chosen):
                return False
            chosen.append(code)
        return True

    def explain(self, candidate: Candidate) -> str | None:
        """Why a candidate is not of this space, or None."""
        values = candidate.to_dict()
        for axis in ORDER:
            if values[axis] not in self.domains[axis]:
                return f"{axis}={values[axis]!r} is not among {self.domains[axis]}"
        return buildable(candidate) or broken(tuple(self.rules), candidate)

    def decode(self, values: Mapping[str, Value]) -> Candidate:
        """The valid candidate nearest to any combination of axis values; a valid one comes back unchanged.

        Axis by axis, a value that the earlier choices rule out moves to the nearest allowed one in declared order.
        """
        chosen: list[int] = []
        for axis in self.domains:
            place = self._place(axis, values)
            chosen.append(min(self.numbering.allowed(chosen), key=lambda code: abs(code - place)))
        return Candidate.model_validate(
            {axis: domain[code] for (axis, domain), code in zip(self.domains.items(), chosen, strict=True)}
        )

    def sample(self, generator: random.Random) -> Candidate:
        """One valid candidate, uniformly."""
        return self.numbered([generator.randrange(self.size)])[0]

    def neighbours(self, candidate: Candidate) -> list[Candidate]:
        """Valid candidates one step away along one axis (after snapping the others)."""
        values = candidate.to_dict()
        found: dict[str, Candidate] = {}
        for axis in self.axes:
            place = self.axes[axis].index(values[axis])
            for step in (-1, 1):
                if 0 <= place + step < len(self.axes[axis]):
                    near = self.decode({**values, axis: self.axes[axis][place + step]})
                    found[near.key] = near
        found.pop(candidate.key, None)
        return list(found.values())

    def _place(self, axis: str, values: Mapping[str, Value]) -> int:
        domain = self.domains[axis]
        value = values.get(axis) if axis in self.axes else values.get(axis, domain[0])
        if value not in domain:
            raise SpaceError(f"{axis} must be one of {domain}, but got {value!r}")
        return domain.index(value)


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
