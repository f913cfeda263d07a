"""Both sides of every design of a space as tables: what each side adds to latency, memory, parameters and quality."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.cost_connector import IN_ENCODER
from nas.cost_many import cost_of_codes
from nas.cost_rows import Column, Rows
from nas.cost_vision import second_encoder, sets, token_width, view, views
from nas.latency.estimate import middles_ms
from nas.quality.prior_columns import language_columns, seeing_columns
from nas.records import DTYPE_BYTES, GIB
from nas.search.problem import Problem
from search_spaces import Candidate
from search_spaces.catalogue import encoder, language_model
from search_spaces.numbering import Codes

Matrix = NDArray[np.float64]
MOST_SIDES = 4_000_000
ENCODING = (
    "encoder", "encoder_depth", "resolution", "second_encoder", "fusion", "tiling", "tiles", "temporal_factor",
)  # fmt: skip
CONNECTING = ("encoder", "resolution", "temporal_factor", "projector", "compression", "compression_factor")


@dataclass(frozen=True)
class Side:
    """Rows of one side. Of a pair everything is the sum of both, but activations the larger and quality as below.

    quality = level(a) + level(b) - slope(a) slope(b)
    """

    place: Column
    params: Column
    bytes: Column  # beside 4 a parameter of the seeing side: the decoder's weights and its cache
    activation: Column
    level: Matrix
    slope: Matrix
    latency: dict[str, Matrix]  # by metric@device

    def only(self, rows: Any) -> Side:
        """Some of the rows."""
        return Side(
            self.place[rows], self.params[rows], self.bytes[rows], self.activation[rows], self.level[rows],
            self.slope[rows], {name: column[rows] for name, column in self.latency.items()},
        )  # fmt: skip


class SideTables:
    """The sides of a space, and which of them can be joined."""

    def __init__(self, problem: Problem) -> None:
        """Raises: SpaceError where there are more than MOST_SIDES."""
        self.problem, self.space = problem, problem.space
        axes, numbering = list(self.space.domains), self.space.numbering
        split = axes.index("lm") + 1
        prefixes = numbering.ways_on(np.zeros((1, 0), dtype=np.int16), split, MOST_SIDES)
        state_axes = sorted({*numbering.live[split], split - 1})
        first, state = _distinct([prefixes[:, one].astype(np.int64) for one in state_axes])
        self.endings = [numbering.ways_on(prefixes[[row]], len(axes), MOST_SIDES)[:, split:] for row in first]
        self.seeing_codes = np.hstack([prefixes, np.array([some[0] for some in self.endings])[state]])
        self.split = split
        self.seeing = self._seeing()
        self._group(state)
        self.language = self._language()

    @property
    def largest_memory_gib(self) -> float:
        """No design needs more."""
        seeing, language = self.seeing, self.language
        most = DTYPE_BYTES * seeing.params.max() + language.bytes.max()
        return float(most + max(seeing.activation.max(), language.activation.max())) / GIB

    def groups(self) -> Iterator[tuple[Side, Side]]:
        """Sides of which every one can be joined with every other."""
        for members, rows in zip(self.members, self.rows, strict=True):
            yield self.seeing.only(members), self.language.only(rows)

    def made(self, places: NDArray[np.int64]) -> list[Candidate]:
        """(pairs, 2) rows of both tables -> the designs."""
        domains = list(self.space.domains.items())
        codes = np.hstack(
            [self.seeing_codes[places[:, 0], : self.split], self.language_codes[places[:, 1], self.split :]]
        )
        return [
            Candidate.model_validate({axis: values[code] for (axis, values), code in zip(domains, row, strict=True)})
            for row in codes.tolist()
        ]

    def _seeing(self) -> Side:
        """Every prefix, with the first of its endings."""
        problem, rows = self.problem, Rows(self.space.domains, self.seeing_codes)
        costs = cost_of_codes(self.space, self.seeing_codes, problem.workload)
        self.tokens = costs.visual_tokens
        slope, level = seeing_columns(rows, costs, problem.baseline)
        params = costs.encoder_params + costs.projector_params
        encoding, connecting = _distinct(_encoding_key(rows)), _distinct(_connecting_key(rows))
        latency: dict[str, Matrix] = {}
        for device in problem.devices:
            vision = self._ms(rows, encoding, device, ("vision_ms",))[0]
            seen = vision + sum(self._ms(rows, connecting, device, ("preprocess_ms", "projector_ms")))
            latency |= {f"vision_ms@{device}": vision, f"ttft_ms@{device}": seen, f"latency_ms@{device}": seen}
            latency[f"tpot_ms@{device}"] = np.zeros(len(rows))
        activation = problem.workload.batch * problem.workload.images * problem.workload.frames * _activation(rows)
        return Side(np.arange(len(rows)), params, 0 * params, activation, level, slope, latency)

    def _group(self, state: Column) -> None:
        """Which seeing sides meet their decoder alike; each group has the endings of its state."""
        rows = Rows(self.space.domains, self.seeing_codes)
        dropping = rows.decided(("compression", "compression_factor"), _dropping)[0]
        crossing = rows.decided(("projector",), lambda one: [int(one.crosses)])[0]
        first, group = _distinct([state, self.tokens, dropping, crossing])
        order = np.argsort(group, kind="stable")
        self.members = np.split(order, np.cumsum(np.bincount(group))[:-1])
        if self.problem.workload.turns > 1:  # of these no latency is known over several turns
            known = [not dropping[row] and not crossing[row] for row in first]
            self.members = [some for some, is_known in zip(self.members, known, strict=True) if is_known]
        # The least activation of the group stands for its seeing side, so that it hides none of the language side's.
        least = [some[int(np.argmin(self.seeing.activation[some]))] for some in self.members]
        endings = [self.endings[state[row]] for row in least]
        counts = [len(some) for some in endings]
        self.firsts = np.repeat(least, counts)
        self.language_codes: Codes = np.hstack([self.seeing_codes[self.firsts, : self.split], np.vstack(endings)])
        self.rows = np.split(np.arange(len(self.firsts)), np.cumsum(counts)[:-1])

    def _language(self) -> Side:
        """Every ending of every group, beside what its one seeing side adds."""
        problem, rows = self.problem, Rows(self.space.domains, self.language_codes)
        costs = cost_of_codes(self.space, self.language_codes, problem.workload)
        slope, level = language_columns(rows, costs, problem.baseline)
        own = self.seeing.params[self.firsts]
        alone = costs.params - own, costs.weight_bytes - DTYPE_BYTES * own + costs.kv_bytes
        latency: dict[str, Matrix] = {}
        every = np.arange(len(rows)), np.arange(len(rows))
        for device in problem.devices:
            prefill, step = self._ms(rows, every, device, ("prefill_ms", "tpot_ms"))
            latency |= {f"ttft_ms@{device}": prefill, f"tpot_ms@{device}": step, f"vision_ms@{device}": 0 * step}
            latency[f"latency_ms@{device}"] = prefill + (problem.workload.new_tokens - 1) * step
        return Side(np.arange(len(rows)), *alone, costs.activation_bytes, level, slope, latency)

    def _ms(self, rows: Rows, parts: tuple[Column, Column], device: str, names: Sequence[str]) -> list[Matrix]:
        """Milliseconds of some parts of every row, by what decides them: (first rows, part of each row)."""
        problem, (first, part) = self.problem, parts
        known = problem.profiles[device], problem.calibrations[device], problem.setting
        found = [middles_ms(rows.candidate(row), problem.workload, *known, names) for row in first.tolist()]
        return [column[part] for column in np.array(found).T]


def _encoding_key(rows: Rows) -> list[Column]:
    """What decides the encoders' time: the views, and what prunes by their attention."""
    pruning = rows.decided(("compression", "compression_factor"), _pruning)
    return [*(rows.codes(axis) for axis in ENCODING), *pruning]


def _pruning(one: Candidate) -> Sequence[int]:
    names = ("", *IN_ENCODER)
    return (names.index(one.compression), one.compression_factor) if one.compression in names else (0, 0)


def _connecting_key(rows: Rows) -> list[Column]:
    """What decides the time of preprocessing and projector."""
    width = rows.decided(("encoder", "second_encoder", "tiling", "tiles"), _width)
    shapes = rows.decided(("tiling", "tiles", "fusion"), lambda one: (views(one), sets(one)))
    hidden = rows.decided(("lm",), lambda one: [language_model(one.lm).hidden])
    return [*(rows.codes(axis) for axis in CONNECTING), *width, *shapes, *hidden]


def _width(one: Candidate) -> Sequence[int]:
    return [token_width(one, encoder(one.encoder), second_encoder(one))]


def _dropping(one: Candidate) -> Sequence[int]:
    return [one.compression_factor if one.compression == "fastv" else 0]


def _activation(rows: Rows) -> Column:
    """Bytes of the encoders for one image: the larger of two."""
    pictures = rows.decided(("tiling", "tiles"), lambda one: [views(one)])[0]
    first = rows.decided(("encoder", "encoder_depth", "resolution"), lambda one: [_bytes(one, one.encoder)])[0]
    second = rows.decided(("second_encoder", "resolution"), lambda one: [_bytes(one, one.second_encoder)])[0]
    return pictures * np.maximum(first, second)


def _bytes(one: Candidate, name: str) -> int:
    return 0 if name == "none" else view(encoder(name), one.resolution).activation_bytes


def _distinct(columns: Sequence[Column]) -> tuple[Column, Column]:
    """(a first row of each distinct combination, the combination of each row)."""
    key = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        codes = np.unique(column, return_inverse=True)[1]
        key = np.unique(key * (int(codes.max()) + 1) + codes, return_inverse=True)[1]
    return np.unique(key, return_index=True)[1], key
