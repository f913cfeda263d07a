"""Closed-form cost of a candidate: parameters, FLOPs, bytes and peak memory. No torch; FLOPs = 2 x multiply-adds.

Matrix products, convolutions and attention are counted; norms, activations and pooling are not (below 1 %).
"""

from __future__ import annotations

from functools import lru_cache

from nas import cost_language
from nas.cost_connector import connector_cost
from nas.cost_vision import design_width, sets, view_flops, views, vision_activation_bytes, vision_params
from nas.records import DTYPE_BYTES, Cost
from nas.workload import Workload
from search_spaces import Candidate
from search_spaces.catalogue import encoder


@lru_cache(maxsize=65536)
def cost(candidate: Candidate, workload: Workload) -> Cost:
    """Cost of one request of the workload; exact in parameters."""
    spec, lm, stack = encoder(candidate.encoder), cost_language.shaped(candidate), cost_language.layers(candidate)
    grid_tokens = spec.tokens(candidate.resolution)
    tokens = spec.tokens(candidate.resolution, candidate.entering_factor)
    images, grids = workload.images * workload.batch, sets(candidate)
    projector_params, projector_flops = connector_cost(
        candidate.projector,
        candidate.compression,
        candidate.compression_factor,
        spec,
        lm.hidden,
        candidate.resolution,
        design_width(candidate),
    )
    prompt = workload.images * grids * tokens + workload.prompt_tokens
    context = prompt + workload.new_tokens
    dropped = (
        workload.images * grids * (tokens - tokens // candidate.compression_factor) if candidate.prune_layer else 0
    )
    whole, short = stack[: candidate.prune_layer or None], stack[candidate.prune_layer or len(stack) :]
    embedding = cost_language.head_params(lm)
    encoder_params = vision_params(candidate)
    body = cost_language.body_params(lm, stack)
    return Cost(
        encoder_params=encoder_params,
        projector_params=projector_params,
        lm_body_params=body,
        embedding_params=embedding,
        vision_flops=images * views(candidate) * view_flops(candidate),
        projector_flops=images * grids * projector_flops,
        prefill_flops=workload.batch
        * (
            cost_language.stack_flops(lm, whole, prompt, prompt)
            + cost_language.layers_flops(short, prompt - dropped, prompt - dropped)
        ),
        decode_flops=workload.batch
        * (cost_language.stack_flops(lm, whole, 1, context) + cost_language.layers_flops(short, 1, context - dropped)),
        grid_tokens=workload.images * views(candidate) * grid_tokens,
        visual_tokens=workload.images * grids * tokens,
        weight_bytes=(encoder_params + projector_params + embedding) * DTYPE_BYTES
        + cost_language.body_bytes(lm, stack, candidate.lm_weights),
        kv_bytes=workload.batch
        * (
            cost_language.cache_bytes(whole, context, candidate.kv_cache)
            + cost_language.cache_bytes(short, context - dropped, candidate.kv_cache)
        ),
        activation_bytes=max(
            images * views(candidate) * vision_activation_bytes(spec, candidate.resolution),
            workload.batch * (prompt * (2 * lm.hidden + 3 * lm.ffn) + lm.vocab) * DTYPE_BYTES,
        ),
    )
