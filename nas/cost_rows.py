"""Many candidates as the places of their values on the axes, and what few of these axes decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces import Candidate
from search_spaces.sizes import Value

Column = NDArray[np.int64]
Matrix = NDArray[np.float64]
MOST_KEYS = 2**22


class Rows:
    """Candidates as the places of their values on the axes: (rows, axes)."""

    def __init__(self, domains: Mapping[str, Sequence[Value]], codes: NDArray[Any]) -> None:
        self.domains = domains
        self._place = {axis: index for index, axis in enumerate(domains)}
        self._codes = codes

    def __len__(self) -> int:
        return len(self._codes)

    def where(self, chosen: NDArray[np.bool_]) -> Rows:
        """Some of the rows."""
        return Rows(self.domains, self._codes[chosen])

    def codes(self, axis: str) -> Column:
        return self._codes[:, self._place[axis]].astype(np.int64)

    def numbers(self, axis: str) -> Column:
        """The values of an axis of numbers."""
        return np.array(self.domains[axis], dtype=np.int64)[self.codes(axis)]

    def candidate(self, row: int) -> Candidate:
        """Not checked: its values are those of a valid one."""
        places = zip(self.domains.items(), self._codes[row].tolist(), strict=True)
        return Candidate.model_construct(**{axis: values[place] for (axis, values), place in places})

    def distinct(self, axes: Sequence[str]) -> tuple[Column, Column]:
        """(a first row of each distinct combination of these axes, the combination of each row)."""
        key, keys = np.zeros(len(self), dtype=np.int64), 1
        for axis in axes:
            if keys * len(self.domains[axis]) > MOST_KEYS:
                values, key = np.unique(key, return_inverse=True)
                keys = len(values)
            keys *= len(self.domains[axis])
            key = key * len(self.domains[axis]) + self.codes(axis)
        places = np.full(keys, -1, dtype=np.int64)
        places[key[::-1]] = np.arange(len(key))[::-1]  # the first row of each combination is written last
        found = np.flatnonzero(places >= 0)
        first = places[found]
        places[found] = np.arange(len(found))
        return first, places[key]

    def decided(self, axes: Sequence[str], record: Callable[[Candidate], Sequence[int]]) -> list[Column]:
        """The numbers of a record that these axes decide, as columns."""
        first, part = self.distinct(axes)
        return gather([record(self.candidate(row)) for row in first.tolist()], part)

    def figures(self, axes: Sequence[str], record: Callable[[Candidate], Sequence[float]]) -> list[Matrix]:
        """The same of a record of any numbers."""
        return self.records(self.distinct(axes), record)

    def records(self, parts: tuple[Column, Column], record: Callable[[Candidate], Sequence[float]]) -> list[Matrix]:
        """Numbers of a record by what decides it: (first rows, part of each row)."""
        first, part = parts
        found = np.array([record(self.candidate(row)) for row in first.tolist()], dtype=np.float64)
        return [column[part] for column in found.T]


def distinct(columns: Sequence[Column]) -> tuple[Column, Column]:
    """(a first row of each distinct combination, the combination of each row)."""
    key = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        codes = np.unique(column, return_inverse=True)[1]
        key = np.unique(key * (int(codes.max()) + 1) + codes, return_inverse=True)[1]
    return np.unique(key, return_index=True)[1], key


def gather(records: Sequence[Sequence[int]], part: Column) -> list[Column]:
    """The fields of plain records as columns, by the record of each row."""
    return [column[part] for column in np.array(records, dtype=np.int64).T]
