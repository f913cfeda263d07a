"""Numbers every valid combination of a space, 0 to size - 1, without walking them: exact counts by dynamic programming.

Axes are decided in order. How many ways there are to go on depends only on those decided axes that a later rule still
reads, so a table over them is enough (variable elimination, Dechter 1999). Tables are small where rules read few axes;
counts are exact integers of any size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.catalogue import SpaceError
from search_spaces.rules import Rule
from search_spaces.sizes import Value, deciding_axes, derive

Codes = NDArray[np.int16]
Table = NDArray[Any]
MOST_CELLS = 50_000_000
ROWS_AT_ONCE = 50_000


class Numbering:
    """Numbers follow the order of the axes, and within an axis that of its values."""

    def __init__(self, domains: Mapping[str, Sequence[Value]], rules: Sequence[Rule]) -> None:
        """Raises: SpaceError where a rule joins so many axes that no table of them fits."""
        self.domains = {axis: list(values) for axis, values in domains.items()}
        axes = list(self.domains)
        place = {axis: index for index, axis in enumerate(axes)}
        scopes = [sorted(place[axis] for axis in rule.reads) for rule in rules]
        self.live = [
            sorted({one for scope in scopes if scope[-1] >= index for one in scope if one < index})
            for index in range(len(axes))
        ]
        self._upto: list[Table] = [np.empty(0)] * len(axes)
        after: Table = np.ones((), dtype=np.int64)
        after_scope: list[int] = []
        for index in reversed(range(len(axes))):
            scope = [*self.live[index], index]
            shape = [len(self.domains[axes[one]]) for one in scope]
            if math.prod(shape) > MOST_CELLS:
                raise SpaceError(
                    f"rules join too many values of {', '.join(axes[one] for one in scope)}; read fewer axes"
                )
            remaining = math.prod(len(self.domains[axis]) for axis in axes[index:])
            kept: Table = np.ones(shape, dtype=bool)
            for rule, read in zip(rules, scopes, strict=True):
                if read[-1] == index:
                    kept &= _spread(_verdicts(rule, self.domains), read, scope)
            count: Any = np.int64 if remaining < 2**62 else object
            upto = np.cumsum(kept * _spread(after.astype(count, copy=False), after_scope, scope), axis=-1)
            fits = upto.dtype != object or int(upto.max()) < 2**62
            self._upto[index] = upto.astype(np.int64, copy=False) if fits else upto
            after, after_scope = self._upto[index][..., -1], self.live[index]
        self.size = int(after)

    def codes(self, numbers: Sequence[int]) -> Codes:
        """(numbers, axes): the place of each value on its axis."""
        found = np.zeros((len(numbers), len(self.domains)), dtype=np.int16)
        for start in range(0, len(numbers), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            kind: Any = np.int64 if self.size < 2**62 else object
            self._fill(found[rows], np.array(numbers[rows], dtype=kind))
        return found

    def allowed(self, chosen: Sequence[int]) -> list[int]:
        """Which values of the next axis can be completed, given the places of all axes before it."""
        upto = self._upto[len(chosen)][tuple(chosen[one] for one in self.live[len(chosen)])]
        return [code for code, ways in enumerate(np.diff(upto, prepend=0)) if ways]

    def ways_on(self, decided: Codes, stop: int, most: int) -> Codes:
        """Every way to go on from each row of places, through the axes before `stop`: (ways, stop).

        Raises: SpaceError where there are more than `most`, before they are held.
        """
        for index in range(decided.shape[1], stop):
            is_open = np.diff(self._upto[index], axis=-1, prepend=0) > 0
            of_rows = is_open[tuple(decided[:, one] for one in self.live[index])]
            row, code = np.nonzero(np.broadcast_to(of_rows.astype(bool), (len(decided), is_open.shape[-1])))
            if len(row) > most:
                raise SpaceError(f"there are more than {most:,} ways to decide {', '.join(list(self.domains)[:stop])}")
            decided = np.column_stack([decided[row], code.astype(np.int16)])
        return decided

    def taken(self, decided: Codes, code: int) -> Codes:
        """Those rows of places that can go on with this place on the next axis, and it."""
        index = decided.shape[1]
        is_open = np.diff(self._upto[index], axis=-1, prepend=0)[..., code] > 0
        rows = np.broadcast_to(is_open[tuple(decided[:, one] for one in self.live[index])].astype(bool), len(decided))
        return np.column_stack([decided[rows], np.full(int(rows.sum()), code, dtype=np.int16)])

    def _fill(self, found: Codes, rest: Table) -> None:
        """Each number's value of an axis is where the running count of ways passes what is left of the number."""
        for index, upto in enumerate(self._upto):
            count = upto.shape[-1]
            if count == 1:
                continue
            flat, start = upto.reshape(-1), np.zeros(len(rest), dtype=np.int64)
            for one, length in zip(self.live[index], upto.shape, strict=False):
                start = start * length + found[:, one]
            start *= count
            code = np.zeros(len(rest), dtype=np.int64)
            for bit in reversed(range((count - 1).bit_length())):  # binary search, all numbers at once
                probe = code + (1 << bit)
                passed = (probe < count) & (flat[start + np.minimum(probe, count) - 1] <= rest)
                code = np.where(passed, probe, code)
            rest = rest - np.where(code > 0, flat[start + np.maximum(code - 1, 0)], 0)
            found[:, index] = code


def _spread(table: Table, scope: Sequence[int], over: Sequence[int]) -> Table:
    """A table over `scope` with an axis of length 1 for each of `over` that it does not read."""
    sizes = dict(zip(scope, table.shape, strict=True))
    return table.reshape([sizes.get(one, 1) for one in over])


def _verdicts(rule: Rule, domains: Mapping[str, Sequence[Value]]) -> Table:
    """Whether a rule holds, over the axes that it reads in their order.

    It is asked once for each combination of the few distinct values of the names that it speaks of.
    """
    axes = [axis for axis in domains if axis in rule.reads]
    distinct: list[list[Value]] = []
    places: list[Table] = []
    for name in rule.names:
        deciding = [axis for axis in axes if axis in deciding_axes(name)]
        values = [
            derive(name, dict(zip(deciding, combination, strict=True)))
            for combination in product(*(domains[axis] for axis in deciding))
        ]
        some = list(dict.fromkeys(values))
        numbers = {value: number for number, value in enumerate(some)}
        codes = np.array([numbers[value] for value in values])
        distinct.append(some)
        places.append(codes.reshape([len(domains[axis]) if axis in deciding else 1 for axis in axes]))
    told = [rule.verdict(dict(zip(rule.names, combination, strict=True))) for combination in product(*distinct)]
    table: Table = np.array(told).reshape([len(some) for some in distinct])
    return table[tuple(places)]
