"""Closed-form cost of a candidate: parameters, FLOPs, bytes and peak memory. No torch; FLOPs = 2 x multiply-adds.

Matrix products, convolutions and attention are counted; norms, activations and pooling are not (below 1 %).
"""

from __future__ import annotations

from functools import lru_cache

from nas.cost_connector import connector_cost
from nas.cost_vision import vision_activation_bytes, vision_flops
from nas.records import DTYPE_BYTES, Cost
from nas.workload import Workload
from search_spaces import Candidate
from search_spaces.catalogue import LanguageModelSpec, encoder, language_model


@lru_cache(maxsize=65536)
def cost(candidate: Candidate, workload: Workload) -> Cost:
    """Cost of one request of the workload; exact in parameters."""
    spec, lm = encoder(candidate.encoder), language_model(candidate.lm)
    grid_tokens = spec.tokens(candidate.resolution)
    tokens = spec.tokens(candidate.resolution, candidate.compression_factor)
    images = workload.images * workload.batch
    projector_params, projector_flops = connector_cost(
        candidate.projector, candidate.compression, candidate.compression_factor, spec, lm.hidden, candidate.resolution
    )
    prompt = workload.images * tokens + workload.prompt_tokens
    context = prompt + workload.new_tokens
    embedding = lm.vocab * lm.hidden * (1 if lm.tied_embeddings else 2)
    encoder_params = spec.params + spec.position_params(candidate.resolution)
    body = candidate.lm_depth * decoder_layer_params(lm) + lm.hidden
    params = encoder_params + projector_params + body + embedding
    return Cost(
        encoder_params=encoder_params,
        projector_params=projector_params,
        lm_body_params=body,
        embedding_params=embedding,
        vision_flops=images * vision_flops(spec, candidate.resolution),
        projector_flops=images * projector_flops,
        prefill_flops=workload.batch * decoder_flops(lm, candidate.lm_depth, prompt, prompt),
        decode_flops=workload.batch * decoder_flops(lm, candidate.lm_depth, 1, context),
        grid_tokens=workload.images * grid_tokens,
        visual_tokens=workload.images * tokens,
        weight_bytes=params * DTYPE_BYTES,
        kv_bytes=workload.batch * 2 * candidate.lm_depth * lm.kv_heads * lm.head_dim * context * DTYPE_BYTES,
        activation_bytes=max(
            images * vision_activation_bytes(spec, candidate.resolution),
            workload.batch * (prompt * (2 * lm.hidden + 3 * lm.ffn) + lm.vocab) * DTYPE_BYTES,
        ),
    )


def decoder_layer_params(lm: LanguageModelSpec) -> int:
    """One decoder layer: attention with grouped keys and values, gated FFN, two norms."""
    attention = 2 * lm.hidden * lm.head_dim * (lm.heads + lm.kv_heads)
    return attention + 3 * lm.hidden * lm.ffn + 2 * lm.hidden


def decoder_flops(lm: LanguageModelSpec, depth: int, tokens: int, context: int) -> int:
    """`tokens` new positions that attend to `context`; the vocabulary is read at the last position only."""
    matrices = 2 * tokens * (decoder_layer_params(lm) - 2 * lm.hidden)
    attention = 4 * tokens * context * lm.heads * lm.head_dim
    return depth * (matrices + attention) + 2 * lm.hidden * lm.vocab
