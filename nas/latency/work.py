"""What a block computes and moves, in closed form: the features of every estimate. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from nas.cost_connector import POOLS_ITSELF, attending, connector_bill, sized
from nas.cost_cross import CrossStack
from nas.cost_language import uniform_stack
from nas.cost_vision import encoder_params, vision_activation_bytes, vision_flops
from nas.latency.blocks import BlockSpec
from nas.records import DTYPE_BYTES
from search_spaces.catalogue import encoder, language_model

# Kernels in eager mode, counted by hand: norms, projections, rotary, attention, gated FFN and residuals of one decoder
# layer; the same of a ViT block; a whole CNN is taken as some 16 inverted bottlenecks of nine kernels each.
DECODER_KERNELS, VIT_KERNELS, CNN_KERNELS, SHELL_KERNELS, PREPROCESS_KERNELS = 24, 14, 150, 10, 6
CROSS_KERNELS = 16  # of a gated layer
MERGING_KERNELS = 30  # of ToMe in a ViT block
PHOTO_BYTES = 640 * 480 * 3
SPECTRUM = 201  # frequencies of one frame of sound (Whisper: windows of 400 samples)


@dataclass(frozen=True, slots=True)
class Work:
    """FLOPs = 2 x multiply-adds; bytes at float32; `rows` of the matrix products' left side."""

    flops: float
    weight_bytes: float
    activation_bytes: float
    kernels: int
    rows: int

    def __add__(self, other: Work) -> Work:
        return Work(
            self.flops + other.flops,
            self.weight_bytes + other.weight_bytes,
            self.activation_bytes + other.activation_bytes,
            self.kernels + other.kernels,
            max(self.rows, other.rows),
        )

    def times(self, count: float) -> Work:
        """`count` blocks of the same kind, one after the other."""
        return Work(
            count * self.flops, count * self.weight_bytes, count * self.activation_bytes,
            round(count * self.kernels), self.rows,
        )  # fmt: skip


FEATURES = (
    "kernels", "product_flops", "convolution_flops", "weight_bytes", "activation_bytes", "convolution_bytes",
    "photos", "pixels",
)  # fmt: skip


def features(block: BlockSpec) -> list[float]:
    """What calibrated estimates are linear in; convolutions and preprocessing run at rates of their own."""
    if block.kind == "preprocess":
        numbers = block.resolution * int(dict(block.axes).get("mels", block.resolution))
        return [0, 0, 0, 0, 0, 0, block.batch, block.batch * numbers]
    work = block_work(block)
    if block.kind == "vision" and encoder(block.encoder).family == "cnn":
        return [work.kernels, 0, work.flops, work.weight_bytes, 0, work.activation_bytes, 0, 0]
    return [work.kernels, work.flops, 0, work.weight_bytes, work.activation_bytes, 0, 0, 0]


@lru_cache(maxsize=65536)
def block_work(block: BlockSpec) -> Work:
    """Work of any block; designs of a space share most of theirs."""
    if block.kind == "preprocess" and (mels := int(dict(block.axes).get("mels", 0))):
        frames = block.batch * block.resolution
        flops = frames * SPECTRUM * (5 * math.log2(2 * SPECTRUM) + 2 * mels)  # a Fourier transform, and a matrix
        return Work(flops, 0, DTYPE_BYTES * frames * (8 * SPECTRUM + 8 * mels), PREPROCESS_KERNELS, 1)
    if block.kind == "preprocess":
        pixels = block.batch * block.resolution**2 * 3
        return Work(20 * pixels, 0, block.batch * PHOTO_BYTES + 20 * pixels, PREPROCESS_KERNELS, 1)
    if block.kind == "vision":
        return _vision(block)
    if block.kind == "projector":
        return _connector(block)
    if block.kind in JUNCTIONS:
        return JUNCTIONS[block.kind](block)
    if block.kind.startswith("decoder_"):
        return _shell(block) + _layer(block).times(block.depth)
    return _shell(block) if block.kind.startswith("shell_") else _layer(block)


def _vision(block: BlockSpec) -> Work:
    spec = encoder(block.encoder)
    tokens, depth, merged = spec.tokens(block.resolution), int(dict(block.axes).get("encoder_depth", 0)), 1
    layers, kernels = spec.blocks(depth), VIT_KERNELS
    moved = 2 * block.batch * vision_activation_bytes(spec, block.resolution) * (layers or 8)
    if block.compression == "tome-blocks":
        merged, kernels = block.compression_factor, VIT_KERNELS + MERGING_KERNELS
        moved = round(moved * (1 + 1 / merged) / 2)  # fewer by as much in every block
    return Work(
        block.batch * vision_flops(spec, block.resolution, depth, merged),
        DTYPE_BYTES * (encoder_params(spec, block.resolution, depth) - spec.position_params(block.resolution)),
        moved,
        kernels * layers or CNN_KERNELS,
        block.batch * tokens,
    )


def _connector(block: BlockSpec) -> Work:
    spec, hidden = encoder(block.encoder), language_model(block.lm).hidden
    width, merged = block.width or spec.width, int(dict(block.axes).get("temporal_factor", 1))
    sizes = sized(spec, block.resolution, block.compression_factor, hidden, width)
    pruned = block.compression == "pruned"
    if pruned:
        sizes = replace(sizes, grid=sizes.tokens)
    bill = connector_bill(block.projector, "none" if pruned else block.compression, block.compression_factor, sizes)
    grid, rows = sizes.grid, sizes.grid if block.projector in POOLS_ITSELF else sizes.tokens
    arriving = width * (block.compression_factor if block.compression == "pixel-shuffle" else 1)
    written = rows * (arriving + (1 if block.projector == "linear" else 4) * hidden)
    return Work(
        block.batch * bill.flops,
        DTYPE_BYTES * bill.params,
        DTYPE_BYTES * block.batch * (merged * grid * width + written),
        bill.kernels,
        block.batch * rows,
    )


def _tokens(block: BlockSpec) -> tuple[int, int]:
    """(new positions, positions that they attend to)."""
    if block.kind.endswith("prefill"):
        return block.length, block.length + block.past
    return 1, block.length


def _shell(block: BlockSpec) -> Work:
    lm = language_model(block.lm)
    tokens = block.batch * _tokens(block)[0]
    head = lm.vocab * lm.hidden
    moved = 8 * tokens * lm.hidden + block.batch * lm.vocab
    return Work(2 * block.batch * head, DTYPE_BYTES * head, DTYPE_BYTES * moved, SHELL_KERNELS, block.batch)


def _layer(block: BlockSpec) -> Work:
    """The mean layer of the language model: forms that alternate kinds are spread evenly."""
    changed: dict[str, Any] = dict(block.axes)
    lm = language_model(block.lm).resized(*(changed.get(name, 0) for name in ("lm_ffn", "lm_heads", "lm_experts")))
    tokens, context = _tokens(block)
    stack = uniform_stack(lm, lm.layers)
    flops = block.batch * sum(layer.flops(tokens, context) for layer in stack) / lm.layers
    cached = sum(layer.cache_bytes(context, changed.get("kv_cache", "native")) for layer in stack) / lm.layers
    moved = block.batch * (DTYPE_BYTES * tokens * (10 * lm.hidden + 5 * lm.ffn) + cached)
    weights = sum(layer.weight_bytes(changed.get("lm_weights", "native")) for layer in stack) / lm.layers
    return Work(flops, weights, moved, DECODER_KERNELS, block.batch * tokens)


def _join(block: BlockSpec) -> Work:
    """Copies of pixels and tokens: no products."""
    axes, spec = dict(block.axes), encoder(block.encoder)
    names = [block.encoder, *([str(axes["second_encoder"])] if "second_encoder" in axes else [])]
    numbers = 2 * 3 * block.resolution**2 * (len(names) - 1)
    numbers += 4 * sum(encoder(name).tokens(block.resolution) * encoder(name).width for name in names)
    return Work(0, 0, DTYPE_BYTES * block.batch * numbers, 10 * len(names), block.batch * spec.tokens(block.resolution))


def _prune(block: BlockSpec) -> Work:
    spec = encoder(block.encoder)
    sizes = sized(spec, block.resolution, block.compression_factor, 0)
    bill = connector_bill("linear", block.compression, block.compression_factor, sizes, attending(spec))
    moved = 4 * sizes.grid * sizes.width
    return Work(block.batch * bill.flops, 0, DTYPE_BYTES * block.batch * moved, bill.kernels, block.batch)


def _fastv(block: BlockSpec) -> Work:
    lm = language_model(block.lm)
    row = 2 * block.length * lm.heads * lm.head_dim
    return Work(block.batch * row, 0, DTYPE_BYTES * block.batch * block.length * 3 * lm.hidden, 20, block.batch)


def _crossing(block: BlockSpec) -> Work:
    """Gated layers; keys and values of the image are made before the first step."""
    hidden = language_model(block.lm).hidden
    one: CrossStack[int] = CrossStack(hidden, 1)
    flops = one.flops(block.length, block.visual)
    if block.kind == "cross_prefill":
        flops += one.entry_flops(block.visual)
    moved = DTYPE_BYTES * 14 * block.length * hidden + one.cache_bytes(block.visual)
    rows = block.batch * block.length
    return Work(block.batch * flops, DTYPE_BYTES * one.params, block.batch * moved, CROSS_KERNELS, rows).times(
        block.depth
    )


JUNCTIONS: dict[str, Callable[[BlockSpec], Work]] = {
    "join": _join, "prune": _prune, "fastv": _fastv, "cross_prefill": _crossing, "cross_decode": _crossing,
}  # fmt: skip
