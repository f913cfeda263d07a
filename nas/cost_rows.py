"""Many candidates as the places of their values on the axes, and what few of these axes decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces import Candidate
from search_spaces.sizes import Value

Column = NDArray[np.int64]
MOST_KEYS = 2**62


class Rows:
    """Candidates as the places of their values on the axes: (rows, axes)."""

    def __init__(self, domains: Mapping[str, Sequence[Value]], codes: NDArray[Any]) -> None:
        self.domains = domains
        self._place = {axis: index for index, axis in enumerate(domains)}
        self._codes = codes

    def __len__(self) -> int:
        return len(self._codes)

    def codes(self, axis: str) -> Column:
        return self._codes[:, self._place[axis]].astype(np.int64)

    def numbers(self, axis: str) -> Column:
        """The values of an axis of numbers."""
        return np.array(self.domains[axis], dtype=np.int64)[self.codes(axis)]

    def candidate(self, row: int) -> Candidate:
        """Not checked: its values are those of a valid one."""
        places = zip(self.domains.items(), self._codes[row].tolist(), strict=True)
        return Candidate.model_construct(**{axis: values[place] for (axis, values), place in places})

    def distinct(self, axes: Sequence[str], *others: Column) -> tuple[Column, Column]:
        """(a first row of each distinct combination of these axes and other columns, the combination of each row)."""
        key, keys = np.zeros(len(self), dtype=np.int64), 1
        coded = [(self.codes(axis), len(self.domains[axis])) for axis in axes]
        coded += [_coded(column) for column in others]
        for codes, count in coded:
            if count == 1:
                continue
            if keys * count > MOST_KEYS:
                key, keys = _coded(key)
            key, keys = key * count + codes, keys * count
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        return first, inverse


def _coded(column: Column) -> tuple[Column, int]:
    """A column's places among its distinct values, and their number."""
    values, places = np.unique(column, return_inverse=True)
    return places, len(values)


def gather(records: Sequence[Sequence[int]], part: Column) -> list[Column]:
    """The fields of plain records as columns, by the part of each row."""
    return [column[part] for column in np.array(records, dtype=np.int64).T]
