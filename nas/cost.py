"""Closed-form cost of a candidate: parameters, FLOPs, bytes and peak memory. No torch; FLOPs = 2 x multiply-adds.

Matrix products, convolutions and attention are counted; norms, activations and pooling are not (below 1 %).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Generic, NamedTuple

from nas import cost_language
from nas.cost_connector import connector_cost
from nas.cost_cross import CrossStack
from nas.cost_language import Count
from nas.cost_vision import design_width, sets, view_flops, views, vision_activation_bytes, vision_params
from nas.records import DTYPE_BYTES, Cost
from nas.workload import Workload
from search_spaces import Candidate
from search_spaces.catalogue import encoder


class Sight(NamedTuple, Generic[Count]):
    """What the encoders do in one request."""

    params: Count
    flops: Count
    grid_tokens: Count
    activation_bytes: Count
    grids: Count  # that pass through the connector, of one request of the batch
    width: Count  # of the tokens that reach the connector


class Bridge(NamedTuple, Generic[Count]):
    """What lies between encoders and language model, for one grid of tokens."""

    params: Count
    flops: Count
    tokens: Count  # that the language model reads
    crosses: Count  # 1 where it reads them by cross-attention, so that they take no place in its sequence
    dropped: Count  # of them, what fastv drops inside of it


SIGHT_AXES = (
    "encoder", "encoder_depth", "resolution", "second_encoder", "fusion", "tiling", "tiles", "temporal_factor",
)  # fmt: skip
BRIDGE_AXES = ("encoder", "resolution", "projector", "compression_factor", "compression")


def sight(candidate: Candidate, workload: Workload) -> Sight[int]:
    """Decided by SIGHT_AXES."""
    spec = encoder(candidate.encoder)
    pictures = workload.images * views(candidate)
    return Sight(
        params=vision_params(candidate),
        flops=workload.batch * pictures * view_flops(candidate),
        grid_tokens=pictures * spec.tokens(candidate.resolution),
        activation_bytes=workload.batch * pictures * vision_activation_bytes(spec, candidate.resolution),
        grids=workload.images * sets(candidate),
        width=design_width(candidate),
    )


def bridge(candidate: Candidate, width: int, hidden: int) -> Bridge[int]:
    """Decided by BRIDGE_AXES, the width of the tokens and that of the language model."""
    spec = encoder(candidate.encoder)
    method, factor = candidate.compression, candidate.compression_factor
    bill = connector_cost(candidate.projector, method, factor, spec, hidden, candidate.resolution, width)
    tokens = spec.tokens(candidate.resolution, candidate.entering_factor)
    return Bridge(*bill, tokens, int(candidate.crosses), tokens - tokens // factor if method == "fastv" else 0)


@lru_cache(maxsize=65536)
def cost(candidate: Candidate, workload: Workload) -> Cost:
    """Cost of one request of the workload; exact in parameters. `nas.cost_many` has it for many at once."""
    lm, stack = cost_language.shaped(candidate), cost_language.layers(candidate)
    seen = sight(candidate, workload)
    between = bridge(candidate, seen.width, lm.hidden)
    visual_tokens, dropped = seen.grids * between.tokens, seen.grids * between.dropped
    prompt = visual_tokens * (1 - between.crosses) + workload.prompt_tokens
    cross = CrossStack(lm.hidden, candidate.lm_depth * between.crosses)
    projector_params = between.params + cross.params
    context = prompt + workload.new_tokens
    whole, short = stack[: candidate.prune_layer or None], stack[candidate.prune_layer or len(stack) :]
    embedding = cost_language.head_params(lm)
    return Cost(
        encoder_params=seen.params,
        projector_params=projector_params,
        lm_body_params=cost_language.body_params(lm, stack),
        embedding_params=embedding,
        vision_flops=seen.flops,
        projector_flops=workload.batch * seen.grids * between.flops,
        prefill_flops=workload.batch
        * (
            cost_language.stack_flops(lm, whole, prompt, prompt)
            + cost_language.layers_flops(short, prompt - dropped, prompt - dropped)
            + cross.entry_flops(visual_tokens)
            + cross.flops(prompt, visual_tokens)
        ),
        decode_flops=workload.batch
        * (
            cost_language.stack_flops(lm, whole, 1, context)
            + cost_language.layers_flops(short, 1, context - dropped)
            + cross.flops(1, visual_tokens)
        ),
        grid_tokens=seen.grid_tokens,
        visual_tokens=visual_tokens,
        weight_bytes=(seen.params + projector_params + embedding) * DTYPE_BYTES
        + cost_language.body_bytes(lm, stack, candidate.lm_weights),
        kv_bytes=workload.batch
        * (
            cost_language.cache_bytes(whole, context, candidate.kv_cache)
            + cost_language.cache_bytes(short, context - dropped, candidate.kv_cache)
            + cross.cache_bytes(visual_tokens)
        ),
        activation_bytes=max(
            seen.activation_bytes,
            workload.batch * (prompt * (2 * lm.hidden + 3 * lm.ffn) + lm.vocab) * DTYPE_BYTES,
        ),
    )
