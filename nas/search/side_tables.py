"""Both sides of every design of a space as tables: what each side adds to latency, memory, parameters and quality."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.cost_many import cost_of_codes
from nas.cost_rows import Column, Matrix, Rows, distinct
from nas.cost_vision import view
from nas.latency.estimate_many import Estimates, requests_of
from nas.quality.prior_columns import language_columns, seeing_columns
from nas.records import DTYPE_BYTES
from nas.search.problem import Problem
from search_spaces import Candidate
from search_spaces.catalogue import SpaceError, encoder
from search_spaces.numbering import Codes

MOST_SIDES = 1_000_000  # seeing sides that are held at once: those of one decoder
ROWS_AT_ONCE = 200_000  # language sides that are held at once, where one group has no more


@dataclass(frozen=True)
class Side:
    """Rows of one side. Of a pair everything is the sum of both, but activations the larger and quality as below.

    quality = level(a) + level(b) - slope(a) slope(b)
    """

    codes: Codes  # (rows, axes): the places of values on the axes, those of the other side included
    params: Column
    bytes: Column  # beside 4 a parameter of the seeing side: the decoder's weights and its cache
    activation: Column
    level: Matrix
    slope: Matrix
    latency: dict[str, Matrix]  # by metric@device

    def __len__(self) -> int:
        return len(self.codes)

    def only(self, rows: Any) -> Side:
        """Some of the rows."""
        return Side(
            self.codes[rows], self.params[rows], self.bytes[rows], self.activation[rows], self.level[rows],
            self.slope[rows], {name: column[rows] for name, column in self.latency.items()},
        )  # fmt: skip

    def bound(self, *, best: bool) -> Side:
        """One row that is as good (or as bad) as any in every column."""
        least, most = (np.min, np.max) if best else (np.max, np.min)
        return Side(
            self.codes[:1], _one(least(self.params)), _one(least(self.bytes)), _one(least(self.activation)),
            _one(most(self.level)), _one(least(self.slope)),
            {name: _one(least(column)) for name, column in self.latency.items()},
        )  # fmt: skip


class SideTables:
    """The sides of a space, one decoder at a time, and which of them can be joined."""

    def __init__(self, problem: Problem) -> None:
        """Raises: SpaceError where a decoder has more than MOST_SIDES; `groups` as well."""
        self.problem, self.space = problem, problem.space
        self.split = list(self.space.domains).index("lm") + 1
        self._prefixes = self._listed(np.zeros((1, 0), dtype=np.int16), self.split - 1, "seeing")

    def groups(self) -> Iterator[tuple[Side, Side]]:
        """(seeing, language) sides of which every one can be joined with every other.

        A language side's parameters and bytes are beside those of its seeing side.
        """
        for code in range(len(self.space.domains["lm"])):
            prefixes = self.space.numbering.taken(self._prefixes, code)
            if len(prefixes):
                yield from self._groups(prefixes)

    def joined(self, seeing: Codes, language: Codes) -> Codes:
        """The places of designs, from those of both sides row by row."""
        return np.hstack([seeing[:, : self.split], language[:, self.split :]])

    def made(self, codes: Codes) -> list[Candidate]:
        """The designs."""
        domains = list(self.space.domains.items())
        return [
            Candidate.model_validate({axis: values[code] for (axis, values), code in zip(domains, row, strict=True)})
            for row in codes.tolist()
        ]

    def _listed(self, decided: Codes, stop: int, what: str) -> Codes:
        try:
            return self.space.numbering.ways_on(decided, stop, MOST_SIDES)
        except SpaceError:
            raise SpaceError(f"one decoder has more than {MOST_SIDES:,} {what} sides") from None

    def _groups(self, prefixes: Codes) -> Iterator[tuple[Side, Side]]:
        """Of one decoder."""
        width = len(self.space.domains)
        state_axes = sorted({*self.space.numbering.live[self.split], self.split - 1})
        first, state = distinct([prefixes[:, one].astype(np.int64) for one in state_axes])
        endings = [self._listed(prefixes[[row]], width, "language")[:, self.split :] for row in first]
        codes = np.hstack([prefixes, np.array([some[0] for some in endings])[state]])
        seeing, tokens = self._seeing(codes)
        members = self._members(codes, state, tokens)
        # The least activation of a group stands for its seeing side, so that it hides none of the language side's.
        least = [some[int(np.argmin(seeing.activation[some]))] for some in members]
        counts = np.array([len(endings[state[row]]) for row in least])
        batch = np.cumsum(counts) // ROWS_AT_ONCE
        for start, stop in _runs(batch):
            firsts = np.repeat(least[start:stop], counts[start:stop])
            ends = np.vstack([endings[state[row]] for row in least[start:stop]])
            language = self._language(np.hstack([codes[firsts, : self.split], ends]), seeing.params[firsts])
            places = np.split(np.arange(len(firsts)), np.cumsum(counts[start:stop])[:-1])
            for some, found in zip(members[start:stop], places, strict=True):
                yield seeing.only(some), language.only(found)

    def _members(self, codes: Codes, state: Column, tokens: Column) -> list[Column]:
        """Seeing sides that meet their decoder alike: each group has the endings of its state."""
        rows = Rows(self.space.domains, codes)
        dropping = rows.decided(("compression", "compression_factor"), _dropping)[0]
        crossing = rows.decided(("projector",), lambda one: [int(one.crosses)])[0]
        first, group = distinct([state, tokens, dropping, crossing])
        members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
        if self.problem.workload.turns > 1:  # of these no latency is known over several turns
            known = [not dropping[row] and not crossing[row] for row in first]
            members = [some for some, is_known in zip(members, known, strict=True) if is_known]
        return members

    def _seeing(self, codes: Codes) -> tuple[Side, Column]:
        """Every prefix, with the first of its endings; and its visual tokens."""
        problem, rows = self.problem, Rows(self.space.domains, codes)
        costs = cost_of_codes(self.space, codes, problem.workload)
        slope, level = seeing_columns(rows, costs, problem.baseline)
        params = costs.encoder_params + costs.projector_params
        latency: dict[str, Matrix] = {}
        for device, known in self._estimates(rows).items():
            vision = known.ms("vision_ms")
            seen = vision + known.ms("preprocess_ms") + known.ms("projector_ms")
            latency |= {f"vision_ms@{device}": vision, f"ttft_ms@{device}": seen, f"latency_ms@{device}": seen}
            latency[f"tpot_ms@{device}"] = np.zeros(len(rows))
        pictures = problem.workload.batch * requests_of(rows, problem.workload).pictures
        activation = pictures * _activation(rows)
        return Side(codes, params, 0 * params, activation, level, slope, latency), costs.visual_tokens

    def _language(self, codes: Codes, own: Column) -> Side:
        """Every ending, beside the `own` parameters of its one seeing side."""
        problem, rows = self.problem, Rows(self.space.domains, codes)
        costs = cost_of_codes(self.space, codes, problem.workload)
        slope, level = language_columns(rows, costs, problem.baseline)
        alone = costs.params - own, costs.weight_bytes - DTYPE_BYTES * own + costs.kv_bytes
        latency: dict[str, Matrix] = {}
        for device, known in self._estimates(rows).items():
            prefill, step = known.ms("prefill_ms"), known.ms("tpot_ms")
            latency |= {f"ttft_ms@{device}": prefill, f"tpot_ms@{device}": step, f"vision_ms@{device}": 0 * step}
            latency[f"latency_ms@{device}"] = prefill + (problem.workload.new_tokens - 1) * step
        return Side(codes, *alone, costs.activation_bytes, level, slope, latency)

    def _estimates(self, rows: Rows) -> dict[str, Estimates]:
        problem = self.problem
        return {
            device: Estimates(rows, problem.workload, profile, problem.calibrations[device], problem.setting)
            for device, profile in problem.profiles.items()
        }


def _one(value: Any) -> Any:
    return np.array([value])


def _runs(numbers: Column) -> Iterator[tuple[int, int]]:
    """(start, stop) of every run of equal numbers."""
    starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist()]
    yield from zip(starts, [*starts[1:], len(numbers)], strict=True)


def _dropping(one: Candidate) -> list[int]:
    return [one.compression_factor if one.compression == "fastv" else 0]


def _activation(rows: Rows) -> Column:
    """Bytes of the encoders for one picture: the larger of two."""
    first = rows.decided(("encoder", "encoder_depth", "resolution"), lambda one: [_bytes(one, one.encoder)])[0]
    second = rows.decided(("second_encoder", "resolution"), lambda one: [_bytes(one, one.second_encoder)])[0]
    return np.maximum(first, second)


def _bytes(one: Candidate, name: str) -> int:
    return 0 if name == "none" else view(encoder(name), one.resolution).activation_bytes
