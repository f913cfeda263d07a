"""Closed-form cost of many candidates as numpy columns, equal to `nas.cost` number by number.

A part that few axes decide is computed once for each of their combinations, and rows gather from these tables; the
others are the same formulas on whole columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.cost import Bridge, assemble, bridge
from nas.cost_connector import Attending, Sizes, attending
from nas.cost_decoders import Decoders
from nas.cost_rows import Column, Rows
from nas.cost_vision import Layout, View, layout, second_encoder, view
from nas.records import GIB, Cost
from nas.workload import Workload
from search_spaces import Candidate, SearchSpace
from search_spaces.catalogue import encoder
from search_spaces.sizes import Value

FIRST_AXES = ("encoder", "encoder_depth", "resolution")
MERGING_AXES = (*FIRST_AXES, "compression_factor")
SECOND_AXES = ("second_encoder", "resolution")
LAYOUT_AXES = ("tiling", "tiles", "fusion", "temporal_factor")
KIND_AXES = ("projector", "compression", "compression_factor")


@dataclass(frozen=True, slots=True)
class Costs:
    """The columns of `nas.records.Cost`, one row a candidate."""

    encoder_params: Column
    projector_params: Column
    lm_body_params: Column
    embedding_params: Column
    vision_flops: Column
    projector_flops: Column
    prefill_flops: Column
    decode_flops: Column
    grid_tokens: Column
    visual_tokens: Column
    weight_bytes: Column
    kv_bytes: Column
    activation_bytes: Column

    @property
    def params(self) -> Column:
        return self.encoder_params + self.projector_params + self.lm_body_params + self.embedding_params

    @property
    def flops(self) -> Column:
        """FLOPs until the first token."""
        return self.vision_flops + self.projector_flops + self.prefill_flops

    @property
    def memory_bytes(self) -> Column:
        return self.weight_bytes + self.kv_bytes + self.activation_bytes

    @property
    def memory_gib(self) -> NDArray[np.float64]:
        return self.memory_bytes / GIB

    def __len__(self) -> int:
        return len(self.encoder_params)

    def row(self, index: int) -> Cost:
        """One candidate's record."""
        return Cost(**{field.name: int(getattr(self, field.name)[index]) for field in fields(Cost)})


def cost_of_codes(space: SearchSpace, codes: NDArray[Any], workload: Workload) -> Costs:
    """Cost of candidates of a space by the codes of its numbering."""
    return _costs(Rows(space.domains, codes), workload)


def cost_of_candidates(candidates: Sequence[Candidate], workload: Workload) -> Costs:
    """Cost of any candidates."""
    domains: dict[str, list[Value]] = {}
    codes = np.zeros((len(candidates), len(Candidate.model_fields)), dtype=np.int64)
    for index, axis in enumerate(Candidate.model_fields):
        places: dict[Value, int] = {}
        codes[:, index] = [places.setdefault(getattr(candidate, axis), len(places)) for candidate in candidates]
        domains[axis] = list(places)
    return _costs(Rows(domains, codes), workload)


def _costs(rows: Rows, workload: Workload) -> Costs:
    """The assembly of `nas.cost`, on columns."""
    if not len(rows):
        return Costs(*(np.zeros(0, dtype=np.int64) for _ in fields(Costs)))
    first = _first_views(rows)
    second: View[Column] = View(*rows.decided(SECOND_AXES, _second_view))
    seen: Layout[Column] = Layout(*rows.decided(LAYOUT_AXES, layout))
    decoders = Decoders(rows)
    width = (first.width + second.width) * seen.scales
    between = _bridges(rows, first.tokens, width, decoders.hidden)
    return Costs(**assemble(first, second, seen, between, decoders, workload))


def _first_views(rows: Rows) -> View[Column]:
    """Few axes decide an encoder's cost, but where its blocks merge tokens."""
    columns = rows.decided(FIRST_AXES, lambda one: view(encoder(one.encoder), one.resolution, one.encoder_depth))
    merging = np.array([name == "tome-blocks" for name in rows.domains["compression"]])[rows.codes("compression")]
    if merging.any():
        for column, found in zip(columns, rows.where(merging).decided(MERGING_AXES, _merging_view), strict=True):
            column[merging] = found
    return View(*columns)


def _merging_view(candidate: Candidate) -> View[int]:
    merged = candidate.compression_factor
    return view(encoder(candidate.encoder), candidate.resolution, candidate.encoder_depth, merged)


def _second_view(candidate: Candidate) -> View[int]:
    return view(second_encoder(candidate), candidate.resolution)


def _bridges(rows: Rows, grid: Column, width: Column, hidden: Column) -> Bridge[Column]:
    """Connectors of one kind at a time, of all their sizes at once."""
    attention = rows.decided(("encoder",), lambda candidate: attending(encoder(candidate.encoder)))
    tokens = grid // rows.numbers("compression_factor")
    found = np.zeros((len(Bridge._fields), len(rows)), dtype=np.int64)
    _, kind = rows.distinct(KIND_AXES)
    for some in np.split(np.argsort(kind, kind="stable"), np.cumsum(np.bincount(kind))[:-1]):
        one = rows.candidate(int(some[0]))
        sizes = Sizes(grid[some], tokens[some], width[some], hidden[some])
        seer = Attending(*(column[some] for column in attention))
        found[:, some] = bridge(one.projector, one.compression, one.compression_factor, sizes, seer)
    return Bridge(*found)
