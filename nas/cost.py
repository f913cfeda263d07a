"""Closed-form cost of a candidate: parameters, FLOPs, bytes and peak memory. No torch; FLOPs = 2 x multiply-adds.

Matrix products, convolutions and attention are counted; norms, activations and pooling are not (below 1 %).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Generic, NamedTuple, Protocol

from nas.cost_connector import Attending, Sizes, attending, connector_bill, sized
from nas.cost_cross import CrossStack
from nas.cost_decoders import Decoder
from nas.cost_language import Count
from nas.cost_request import request_tokens
from nas.cost_vision import Layout, View, layout, merged_factor, second_encoder, view
from nas.records import DTYPE_BYTES, Cost
from nas.workload import Workload
from search_spaces import Candidate
from search_spaces.catalogue import encoder


class Bridge(NamedTuple, Generic[Count]):
    """What lies between encoders and language model, for one grid of tokens."""

    params: Count
    flops: Count
    tokens: Count  # that the language model reads
    crosses: Count  # 1 where it reads them by cross-attention, so that they take no place in its sequence
    dropped: Count  # of them, what fastv drops inside of it


class Decoding(Protocol[Count]):
    """A decoder stack, or a column of them; of `dropped` positions the later layers see nothing."""

    hidden: Count
    vocab: Count
    depth: Count
    embedding: Count  # parameters of embedding and head
    prompt_width: Count  # numbers that are held of one position of a prompt

    def params(self) -> Count: ...
    def weight_bytes(self) -> Count: ...
    def prefill_flops(self, prompt: Count, dropped: Count, past: Count, kept_past: Count) -> Count: ...
    def decode_flops(self, context: Count, dropped: Count) -> Count: ...
    def cache_bytes(self, context: Count, dropped: Count) -> Count: ...


def bridge(
    projector: str, compression: str, factor: int, sizes: Sizes[Count], attention: Attending[Count]
) -> Bridge[Count]:
    """Of one grid of `sizes`, as `nas.cost_connector.sized`."""
    bill = connector_bill(projector, compression, factor, sizes, attention)
    drops = compression == "fastv"
    return Bridge(
        params=bill.params,
        flops=bill.flops,
        tokens=sizes.grid if drops else sizes.tokens,
        crosses=0 * sizes.grid + (projector == "cross-attention"),
        dropped=(sizes.grid - sizes.tokens) * drops,
    )


def assemble(
    first: View[Count], second: View[Count], seen: Layout[Count], between: Bridge[Count], decoding: Decoding[Count],
    workload: Workload,
) -> dict[str, Count]:  # fmt: skip
    """The fields of a cost, from its parts; the parts are numbers, or columns with a row a candidate."""
    batch = workload.batch
    found = request_tokens(workload, first.window, seen, between.tokens, between.dropped, between.crosses)
    _, pictures, grids, visual_tokens, dropped, prompt, past, _ = found
    kept_past = past - (workload.turns - 1) * dropped
    context, forgotten = past + prompt + workload.new_tokens, workload.turns * dropped
    cross = CrossStack(decoding.hidden, decoding.depth * between.crosses)
    encoder_params, projector_params = first.params + second.params, between.params + cross.params
    return {
        "encoder_params": encoder_params,
        "projector_params": projector_params,
        "lm_body_params": decoding.params(),
        "embedding_params": decoding.embedding,
        "vision_flops": batch * pictures * (first.flops + second.flops),
        "projector_flops": batch * grids * between.flops,
        "prefill_flops": batch
        * (
            decoding.prefill_flops(prompt, dropped, past, kept_past)
            + cross.entry_flops(visual_tokens)
            + cross.flops(prompt, visual_tokens)
        ),
        "decode_flops": batch
        * (decoding.decode_flops(context, forgotten) + cross.flops(0 * prompt + 1, visual_tokens)),
        "grid_tokens": pictures * first.tokens,
        "visual_tokens": visual_tokens,
        "weight_bytes": (encoder_params + projector_params + decoding.embedding) * DTYPE_BYTES
        + decoding.weight_bytes(),
        "kv_bytes": batch * (decoding.cache_bytes(context, forgotten) + cross.cache_bytes(visual_tokens)),
        "activation_bytes": _larger(
            batch * pictures * _larger(first.activation_bytes, second.activation_bytes),
            batch * (prompt * decoding.prompt_width + decoding.vocab) * DTYPE_BYTES,
        ),
    }


def _larger(one: Count, other: Count) -> Count:
    return one + (other - one) * (other > one)


@lru_cache(maxsize=65536)
def cost(candidate: Candidate, workload: Workload) -> Cost:
    """Cost of one request of the workload; exact in parameters. `nas.cost_many` has it for many at once."""
    spec, decoder = encoder(candidate.encoder), Decoder(candidate)
    first = view(spec, candidate.resolution, candidate.encoder_depth, merged_factor(candidate))
    second = view(second_encoder(candidate), candidate.resolution)
    seen = layout(candidate)
    factor = candidate.compression_factor
    width = (first.width + second.width) * seen.scales
    sizes = sized(spec, candidate.resolution, factor, decoder.hidden, width)
    between = bridge(candidate.projector, candidate.compression, factor, sizes, attending(spec))
    return Cost(**assemble(first, second, seen, between, decoder, workload))
