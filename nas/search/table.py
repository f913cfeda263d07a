"""A table of evaluated designs to replay: any CSV or JSON lines with columns of axes, of quality and of cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.constraints import LATENCY_METRICS
from nas.cost_rows import Matrix
from nas.errors import ConfigError
from nas.quality.columns import Row
from nas.quality.evidence import read_table
from search_spaces import Candidate
from search_spaces.reading import hint

Cell = str | int | float
LOWER_IS_BETTER = (*LATENCY_METRICS, "memory_gib", "params", "flops", "seconds", "loss", "ppl")
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
    gains: Matrix  # (designs, objectives)
    seconds: Matrix  # (designs): how long an evaluation took; one second each where the table does not say

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
        """(designs, features): named axes one by one, numbers by their logarithm where positive, costs too."""
        columns = []
        for axis, values in self.axes.items():
            own = [dict(design.values)[axis] for design in self.designs]
            if any(isinstance(value, str) for value in values):
                columns += [np.array([float(one == value) for one in own]) for value in values]
            else:
                columns.append(_standard(np.array([float(one) for one in own])))
        columns += [_standard(-self.gains[:, place]) for place in range(1, len(self.objectives))]
        return np.array(columns).T

    @cached_property
    def candidate_designs(self) -> list[Candidate] | None:
        """The rows as candidates of ours, where the axes are those of a candidate."""
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
    if not rows:
        raise ConfigError(f"{path} holds no rows")
    wanted = list(axes) or [axis for axis in Candidate.model_fields if axis in rows[0]]
    if not wanted:
        raise ConfigError(f"{path} has no column of a candidate (encoder, lm, ...); name its own with --axis")
    if len(objectives) < 2:
        raise ConfigError("a replay needs two objectives: what an evaluation finds, and a cost that is known before")
    signs = [_direction(name) for name in objectives]
    for name in [*wanted, *(name for name, _ in signs)]:
        if name not in rows[0]:
            raise ConfigError(f"{path} has no column {name!r}; {hint(name, sorted(rows[0]))}")
    found: dict[tuple[tuple[str, Cell], ...], tuple[list[float], float]] = {}
    for row in rows:
        gains = [sign * _number(row.get(name)) for name, sign in signs]
        if all(math.isfinite(gain) for gain in gains):
            spent = _number(row.get(SECONDS))
            place = tuple((axis, _value(row[axis])) for axis in wanted)
            found.setdefault(place, (gains, spent if spent > 0 else 1.0))
    if len(found) < 2:
        raise ConfigError(f"{path} has fewer than two rows with all of {', '.join(name for name, _ in signs)}")
    return Table(
        {axis: _axis([dict(values)[axis] for values in found]) for axis in wanted},
        tuple(Design(place, values) for place, values in enumerate(found)),
        tuple(name for name, _ in signs),
        np.array([gains for gains, _ in found.values()]),
        np.array([spent for _, spent in found.values()]),
    )


def _direction(objective: str) -> tuple[str, int]:
    """(column, 1 to maximise or -1 to minimise)."""
    name, _, way = objective.partition(":")
    if way not in ("", "min", "max"):
        raise ConfigError(f"an objective of a table must read NAME, NAME:min or NAME:max, but got {objective!r}")
    lower = name.partition("@")[0].lower() in LOWER_IS_BETTER if not way else way == "min"
    return name, -1 if lower else 1


def _bare(row: Row) -> Row:
    """Columns of a nested candidate under their own names."""
    return {name.removeprefix("candidate."): value for name, value in row.items()}


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return math.nan


def _value(cell: object) -> Cell:
    """A number where it reads as one; everything else is a name."""
    text = str(cell)
    if text.lstrip("-").isdigit():
        return int(text)
    number = _number(text)
    return number if math.isfinite(number) else text


def _axis(values: Sequence[Cell]) -> list[Cell]:
    distinct = set(values)
    return sorted(distinct, key=str if any(isinstance(value, str) for value in distinct) else float)


def _standard(column: Matrix) -> Matrix:
    spread = np.log(column) if (column > 0).all() else column
    scale = float(spread.std()) or 1.0
    result: Matrix = (spread - spread.mean()) / scale
    return result
