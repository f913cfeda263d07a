"""A table of evaluated designs to replay: any CSV or JSON lines with columns of axes, of quality and of cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nas.constraints import LATENCY_METRICS
from nas.cost_rows import Matrix
from nas.errors import ConfigError
from nas.quality.columns import LOWER, TRUTHS, Row, leaf, number
from nas.quality.tables import read_table
from search_spaces import Candidate
from search_spaces.reading import hint

Cell = str | int | float
Direction = Literal["min", "max"]
COSTS = (*LATENCY_METRICS, "memory_gib", "params", "flops", "seconds")
QUALITIES = ("quality", *TRUTHS)
SECONDS = "seconds"
NEAR = 10  # rows that count as neighbours


@dataclass(frozen=True, slots=True)
class Design:
    """One row of a table: its values on the axes, and its place."""

    place: int
    values: tuple[tuple[str, Cell], ...]

    @property
    def key(self) -> str:
        return str(self.place)

    def to_dict(self) -> dict[str, Cell]:
        return dict(self.values)


@dataclass(frozen=True)
class Table:
    """Distinct designs with their objectives, as columns to maximise.

    The first objective is what an evaluation finds out; the others are costs that are known in advance, as composed
    latency and counted parameters are.
    """

    axes: dict[str, list[Cell]]
    designs: tuple[Design, ...]
    objectives: tuple[str, ...]
    directions: tuple[Direction, ...]
    gains: Matrix  # (designs, objectives)
    seconds: Matrix  # (designs): how long an evaluation took; one second each where the table does not say
    incomplete: int = 0  # rows left out, since they lack an objective
    repeated: int = 0  # rows left out, since a row before them has the same axes

    @property
    def size(self) -> int:
        return len(self.designs)

    @property
    def survey(self) -> tuple[Design, ...]:
        return self.designs

    def surveyed(self, values: Mapping[str, Cell]) -> Design:
        """The row nearest to any combination of axis values, by the steps between them on each axis."""
        return self.designs[int(np.argmin(self._distances(values)))]

    def neighbours(self, design: Design) -> list[Design]:
        """The NEAR nearest rows."""
        order = np.argsort(self._distances(design.to_dict()), kind="stable")[: NEAR + 1]
        return [self.designs[place] for place in order if place != design.place][:NEAR]

    def _distances(self, values: Mapping[str, Cell]) -> Matrix:
        """(designs): how far every row is; a step on a named axis counts as a whole axis."""
        steps = np.abs(self._places - self._encode([values])[0])
        steps[:, self._named] = steps[:, self._named] > 0
        distances: Matrix = steps.sum(axis=1)
        return distances

    @cached_property
    def structure(self) -> Matrix:
        """(designs, features): names one by one, numbers by their logarithm where positive, costs too.

        On an axis of both, as one with empty cells, a name stands in the middle of the numbers.
        """
        columns = []
        for axis, values in self.axes.items():
            own = [dict(design.values)[axis] for design in self.designs]
            names = [value for value in values if isinstance(value, str)]
            columns += [np.array([float(one == name) for one in own]) for name in names]
            if len(names) < len(values):
                columns.append(_standard(np.array([math.nan if isinstance(one, str) else one for one in own])))
        columns += [_standard(-self.gains[:, place]) for place in range(1, len(self.objectives))]
        return np.array(columns).T

    @cached_property
    def candidate_designs(self) -> list[Candidate] | None:
        """The rows as candidates of ours, where the axes are those of a candidate. Raises: ValidationError."""
        fields = Candidate.model_fields
        needed = {name for name, field in fields.items() if field.is_required()}
        if not needed <= set(self.axes) <= set(fields):
            return None
        return [Candidate.model_validate(design.to_dict()) for design in self.designs]

    @cached_property
    def reference(self) -> tuple[float, ...]:
        """The worst of every objective: where hypervolume is counted from."""
        return tuple(float(low) for low in self.gains.min(axis=0))

    @cached_property
    def _places(self) -> Matrix:
        return self._encode([design.to_dict() for design in self.designs])

    @cached_property
    def _named(self) -> NDArray[np.bool_]:
        return np.array([any(isinstance(value, str) for value in values) for values in self.axes.values()])

    def _encode(self, rows: Sequence[Mapping[str, Cell]]) -> Matrix:
        """(rows, axes): places on each axis, scaled to 0..1."""
        return np.array(
            [[values.index(row[axis]) / max(1, len(values) - 1) for axis, values in self.axes.items()] for row in rows]
        )


def read(path: Path, objectives: Sequence[str], axes: Sequence[str] = ()) -> Table:
    """A table by its columns. `NAME:max` and `NAME:min` say which way an objective goes, where its name does not.

    Without `axes`, they are the columns of a candidate. Rows that lack an objective are left out; of rows with the same
    axes the first stays. Raises: ConfigError.
    """
    rows = [_bare(row) for row in read_table(path)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    wanted = list(dict.fromkeys(axes)) or [axis for axis in Candidate.model_fields if axis in columns]
    if not wanted:
        raise ConfigError(f"{path} has no column of a candidate (encoder, lm, ...); name its own with --axis")
    ways = dict(_direction(name, found=not place) for place, name in enumerate(objectives))
    if len(ways) < 2:
        raise ConfigError("a replay needs two objectives: what an evaluation finds, and a cost that is known before")
    for name in [*wanted, *ways]:
        if name not in columns:
            raise ConfigError(f"{path} has no column {name!r}; {hint(name, sorted(columns))}")
    names = tuple(ways)
    if names[0] in wanted:
        raise ConfigError(f"{names[0]!r} is what an evaluation finds, so it cannot be an axis")
    whole = [row for row in rows if all(number(row.get(name)) is not None for name in names)]
    found: dict[tuple[tuple[str, Cell], ...], Row] = {}
    for row in whole:
        found.setdefault(tuple((axis, _value(row.get(axis))) for axis in wanted), row)
    if len(found) < 2:
        raise ConfigError(f"{path} has fewer than two designs with numbers for all of {', '.join(names)}")
    signs = [1 if way == "max" else -1 for way in ways.values()]
    gains = np.array([[number(row[name]) for name in names] for row in found.values()], dtype=float) * signs
    if not (gains > gains.min(axis=0)).all(axis=1).any():
        raise ConfigError(
            f"{path} has no hypervolume: no design is better than the worst in all of {', '.join(names)} at once; "
            f"give other --objective"
        )
    return Table(
        {axis: _axis([dict(values)[axis] for values in found]) for axis in wanted},
        tuple(Design(place, values) for place, values in enumerate(found)),
        names,
        tuple(ways.values()),
        gains,
        np.array([_seconds(row) for row in found.values()]),
        incomplete=len(rows) - len(whole),
        repeated=len(whole) - len(found),
    )


def _direction(objective: str, *, found: bool) -> tuple[str, Direction]:
    """(column, its better end): what is found is a quality, the others are costs, unless a name says otherwise."""
    name, _, way = objective.partition(":")
    if way == "max":
        return name, "max"
    if way == "min":
        return name, "min"
    if way:
        raise ConfigError(f"an objective of a table must read NAME, NAME:min or NAME:max, but got {objective!r}")
    known = leaf(name.partition("@")[0])
    if known in COSTS or LOWER.search(known):
        return name, "min"
    return name, "max" if found or known in QUALITIES else "min"


def _seconds(row: Row) -> float:
    spent = number(row.get(SECONDS))
    return spent if spent is not None and spent > 0 else 1.0


def _bare(row: Row) -> Row:
    """Columns of a nested candidate under their own names."""
    return {name.removeprefix("candidate."): value for name, value in row.items()}


def _value(cell: object) -> Cell:
    """A number where it reads as one; everything else is a name."""
    text = "" if cell is None else str(cell)
    found = None if "_" in text else number(text)  # Python reads 1_2 as 12
    if found is None:
        return text
    return int(found) if found.is_integer() and not set(".eE") & set(text) else found


def _axis(values: Sequence[Cell]) -> list[Cell]:
    distinct = set(values)
    return sorted(distinct, key=str if any(isinstance(value, str) for value in distinct) else float)


def _standard(column: Matrix) -> Matrix:
    """Mean 0 and deviation 1; unknown (NaN) is 0."""
    known = ~np.isnan(column)
    spread = np.log(column) if (column[known] > 0).all() else column
    scale = float(spread[known].std()) or 1.0
    result: Matrix = np.where(known, (spread - spread[known].mean()) / scale, 0.0)
    return result
