"""Closed-form cost of many candidates as numpy columns, equal to `nas.cost` number by number.

Every part is computed once for each distinct combination of what decides it, by the scalar functions of `nas.cost`
and `nas.cost_language`; rows gather from these tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.cost import BRIDGE_AXES, SIGHT_AXES, Bridge, Sight, bridge, sight
from nas.cost_cross import CrossStack
from nas.cost_decoders import Decoders
from nas.cost_rows import Column, Rows, gather
from nas.records import DTYPE_BYTES, GIB, Cost
from nas.workload import Workload
from search_spaces import Candidate, SearchSpace
from search_spaces.sizes import Value


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
    """The assembly of `nas.cost.cost`, on columns."""
    if not len(rows):
        return Costs(*(np.zeros(0, dtype=np.int64) for _ in fields(Costs)))
    decoders, batch = Decoders(rows), workload.batch
    first, part = rows.distinct(SIGHT_AXES)
    seen: Sight[Column] = Sight(*gather([sight(rows.candidate(row), workload) for row in first.tolist()], part))
    first, part = rows.distinct(BRIDGE_AXES, seen.width, decoders.hidden)
    sizes = zip(first.tolist(), seen.width[first].tolist(), decoders.hidden[first].tolist(), strict=True)
    between: Bridge[Column] = Bridge(
        *gather([bridge(rows.candidate(row), width, hidden) for row, width, hidden in sizes], part)
    )
    visual_tokens, dropped = seen.grids * between.tokens, seen.grids * between.dropped
    prompt = visual_tokens * (1 - between.crosses) + workload.prompt_tokens
    cross = CrossStack(decoders.hidden, rows.numbers("lm_depth") * between.crosses)
    projector_params = between.params + cross.params
    context = prompt + workload.new_tokens
    return Costs(
        encoder_params=seen.params,
        projector_params=projector_params,
        lm_body_params=decoders.params(),
        embedding_params=decoders.embedding,
        vision_flops=seen.flops,
        projector_flops=batch * seen.grids * between.flops,
        prefill_flops=batch
        * (
            decoders.prefill_flops(prompt, dropped)
            + cross.entry_flops(visual_tokens)
            + cross.flops(prompt, visual_tokens)
        ),
        decode_flops=batch
        * (decoders.decode_flops(context, dropped) + cross.flops(np.ones_like(prompt), visual_tokens)),
        grid_tokens=seen.grid_tokens,
        visual_tokens=visual_tokens,
        weight_bytes=(seen.params + projector_params + decoders.embedding) * DTYPE_BYTES + decoders.weight_bytes(),
        kv_bytes=batch * (decoders.cache_bytes(context, dropped) + cross.cache_bytes(visual_tokens)),
        activation_bytes=np.maximum(
            seen.activation_bytes, batch * (prompt * decoders.prompt_width + decoders.vocab) * DTYPE_BYTES
        ),
    )
