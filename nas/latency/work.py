"""What a block computes and moves, in closed form: the features of every estimate. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from nas.cost_connector import POOLS_ITSELF, attending, connector_bill, sized
from nas.cost_language import uniform_stack
from nas.cost_vision import vision_activation_bytes, vision_flops
from nas.latency.blocks import BlockSpec
from nas.records import DTYPE_BYTES
from search_spaces.catalogue import encoder, language_model

# Kernels in eager mode, counted by hand: norms, projections, rotary, attention, gated FFN and residuals of one decoder
# layer; the same of a ViT block; a whole CNN is taken as some 16 inverted bottlenecks of nine kernels each.
DECODER_KERNELS, VIT_KERNELS, CNN_KERNELS, SHELL_KERNELS, PREPROCESS_KERNELS = 24, 14, 150, 10, 6
PHOTO_BYTES = 640 * 480 * 3


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
        return [0, 0, 0, 0, 0, 0, block.batch, block.batch * block.resolution**2]
    work = block_work(block)
    if block.kind == "vision" and encoder(block.encoder).family == "cnn":
        return [work.kernels, 0, work.flops, work.weight_bytes, 0, work.activation_bytes, 0, 0]
    return [work.kernels, work.flops, 0, work.weight_bytes, work.activation_bytes, 0, 0, 0]


def block_work(block: BlockSpec) -> Work:
    """Work of any block."""
    if block.kind == "preprocess":
        pixels = block.batch * block.resolution**2 * 3
        return Work(20 * pixels, 0, block.batch * PHOTO_BYTES + 20 * pixels, PREPROCESS_KERNELS, 1)
    if block.kind == "vision":
        return _vision(block)
    if block.kind == "projector":
        return _connector(block)
    if block.kind.startswith("decoder_"):
        return _shell(block) + _layer(block).times(block.depth)
    return _shell(block) if block.kind.startswith("shell_") else _layer(block)


def _vision(block: BlockSpec) -> Work:
    spec = encoder(block.encoder)
    tokens = spec.tokens(block.resolution)
    kernels = VIT_KERNELS * spec.layers if spec.layers is not None else CNN_KERNELS
    moved = 2 * block.batch * vision_activation_bytes(spec, block.resolution) * (spec.layers or 8)
    return Work(
        block.batch * vision_flops(spec, block.resolution), DTYPE_BYTES * spec.params, moved, kernels,
        block.batch * tokens,
    )  # fmt: skip


def _connector(block: BlockSpec) -> Work:
    spec, hidden = encoder(block.encoder), language_model(block.lm).hidden
    grid = spec.tokens(block.resolution)
    tokens = spec.tokens(block.resolution, block.compression_factor)
    sizes = sized(spec, block.resolution, block.compression_factor, hidden)
    bill = connector_bill(block.projector, block.compression, block.compression_factor, sizes, attending(spec))
    rows = grid if block.projector in POOLS_ITSELF or block.compression == "fastv" else tokens
    arriving = spec.width * (block.compression_factor if block.compression == "pixel-shuffle" else 1)
    written = rows * (arriving + (1 if block.projector == "linear" else 4) * hidden)
    return Work(
        block.batch * bill.flops,
        DTYPE_BYTES * bill.params,
        DTYPE_BYTES * block.batch * (grid * spec.width + written),
        bill.kernels,
        block.batch * rows,
    )


def _tokens(block: BlockSpec) -> tuple[int, int]:
    """(new positions, positions that they attend to)."""
    return (block.length, block.length) if block.kind.endswith("prefill") else (1, block.length)


def _shell(block: BlockSpec) -> Work:
    lm = language_model(block.lm)
    tokens = block.batch * _tokens(block)[0]
    head = lm.vocab * lm.hidden
    moved = 8 * tokens * lm.hidden + block.batch * lm.vocab
    return Work(2 * block.batch * head, DTYPE_BYTES * head, DTYPE_BYTES * moved, SHELL_KERNELS, block.batch)


def _layer(block: BlockSpec) -> Work:
    """The mean layer of the language model: forms that alternate kinds are spread evenly."""
    lm = language_model(block.lm)
    tokens, context = _tokens(block)
    stack = uniform_stack(lm, lm.layers)
    flops = block.batch * sum(layer.flops(tokens, context) for layer in stack) / lm.layers
    cached = sum(layer.cache_width * context + layer.state for layer in stack) / lm.layers
    moved = block.batch * (tokens * (10 * lm.hidden + 5 * lm.ffn) + cached)
    weights = sum(layer.params for layer in stack) / lm.layers
    return Work(flops, DTYPE_BYTES * weights, DTYPE_BYTES * moved, DECODER_KERNELS, block.batch * tokens)
