"""Closed-form cost of what lies between encoder and language model, for one grid of tokens. No torch.

Every part is a list of matrices that run on a number of rows; parameters, FLOPs (2 x multiply-adds) and kernels are
read off that one list. Norms, activations and pooling have kernels but no FLOPs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple

from nas.cost_bill import Bill, of_each
from nas.cost_language import Count
from search_spaces.catalogue import EncoderSpec

ABSTRACTOR_BLOCKS = 3  # RegNet blocks before and after the pooling of Honeybee's C-Abstractor
DEFORMABLE_LAYERS, DEFORMABLE_POINTS = 6, 4  # of its D-Abstractor
QFORMER_LAYERS = 12  # BERT-base
PERCEIVER_LAYERS = 6  # Flamingo
WIDENED = 4  # inner width of `mlp-wide` over that of the language model
PRUNES_BY_ATTENTION = ("visionzip", "prumerge")  # of the encoder's last block
IN_ENCODER = (*PRUNES_BY_ATTENTION, "tome-blocks")  # the encoder itself hands on fewer tokens
CONTEXTUAL = 10 / 64  # share of merged tokens among those that VisionZip hands on


def heads_of(width: int, most: int = 16) -> int:
    """Attention heads: of 64 channels where that divides, at most `most`."""
    return max(heads for heads in range(1, most + 1) if width % heads == 0 and (heads == 1 or width // heads >= 64))


def perceiver_heads(width: int) -> tuple[int, int]:
    """(heads, channels of each): eight of 64, fewer where the tokens are narrower than that."""
    return max(1, min(8, width // 64)), min(64, width)


def abstractor_width(hidden: int) -> int:
    """1024 as published, no wider than the language model."""
    return min(1024, hidden)


def qformer_width(hidden: int) -> int:
    """768 as published, no wider than the language model."""
    return min(768, hidden)


@dataclass(frozen=True, slots=True)
class Sizes(Generic[Count]):
    """Of one connector: tokens of the grid, tokens that leave, their width, and that of the language model."""

    grid: Count
    tokens: Count
    width: Count
    hidden: Count


class Attending(NamedTuple, Generic[Count]):
    """What pruning reads of an encoder's last attention."""

    prefix_tokens: Count
    class_token: Count  # 1 where the class token alone scores the patches
    width: Count
    head_width: Count


def attending(encoder: EncoderSpec) -> Attending[int]:
    scores = int(encoder.class_token and encoder.prefix_tokens > 0)
    return Attending(encoder.prefix_tokens, scores, encoder.width, encoder.width // (encoder.heads or 1))


def connector_bill(
    projector: str, compression: str, factor: int, sizes: Sizes[Count], attention: Attending[Count] | None = None
) -> Bill[Count]:
    """Of one grid whose tokens are of `sizes.width` before compression; pruning by `attention` is counted here, too."""
    grid, tokens, width = sizes.grid, sizes.tokens, sizes.width
    bill = Bill(0 * grid, 0 * grid, 0 * grid)
    if compression in PRUNES_BY_ATTENTION:
        assert attention is not None
        _pruning(bill, compression, grid, tokens, attention)
    elif compression == "tome":
        bill.flops += width * of_each(lambda count: merging(count, factor)[0], grid)
        bill.kernels += 20 * of_each(lambda count: merging(count, factor)[1], grid)
    elif projector not in {"ldp", "ldp-v2", "deco"} and compression not in {"none", "queries", "fastv", "tome-blocks"}:
        bill.kernels += 3  # to a grid, the method, and back
    arriving = grid if compression == "fastv" or projector in POOLS_ITSELF else tokens
    channels = width * (factor if compression == "pixel-shuffle" else 1)
    leaving = grid if compression == "fastv" else tokens
    COSTS[projector](bill, Sizes(arriving, leaving, channels, sizes.hidden))
    return bill


def sized(encoder: EncoderSpec, resolution: int, factor: int, hidden: int, width: int = 0) -> Sizes[int]:
    """Of an encoder's grid; `width` where its tokens are wider than its own."""
    return Sizes(encoder.tokens(resolution), encoder.tokens(resolution, factor), width or encoder.width, hidden)


def merging(tokens: int, factor: int) -> tuple[int, int]:
    """(FLOPs a channel, rounds) of bipartite matching, each round of at most half of the tokens, to tokens / factor."""
    left, flops, rounds = tokens // factor, 0, 0
    while tokens > left:
        flops += 2 * -(-tokens // 2) * (tokens // 2)
        rounds += 1
        tokens -= min(tokens // 2, tokens - left)
    return flops, rounds


def _pruning(bill: Bill[Count], method: str, grid: Count, left: Count, attention: Attending[Count]) -> None:
    """Scores of the class token (or of every token), then what is merged into the kept ones."""
    keys = grid + attention.prefix_tokens
    queries = keys + (1 - keys) * attention.class_token
    bill.flops += 2 * queries * keys * attention.width
    bill.kernels += 30
    if method == "prumerge":
        kept = of_each(lambda count: max(1, count - 1), left)
        bill.flops += 4 * kept * (grid - kept) * attention.width
    else:
        merged = of_each(contextual, left)
        bill.flops += 2 * (grid - left) * merged * (attention.width + attention.head_width)


def contextual(left: int) -> int:
    """Merged tokens among those that VisionZip hands on; one that is left alone is none."""
    return max(1, round(left * CONTEXTUAL)) if left > 1 else 0


def _linear(bill: Bill[Count], of: Sizes[Count]) -> None:
    bill.linear(of.tokens, of.width, of.hidden)


def _mlp(bill: Bill[Count], of: Sizes[Count]) -> None:
    bill.mlp(of.tokens, of.width, of.hidden)


def _mlp3(bill: Bill[Count], of: Sizes[Count]) -> None:
    bill.mlp(of.tokens, of.width, of.hidden, 3)


def _mlp_wide(bill: Bill[Count], of: Sizes[Count]) -> None:
    bill.linear(of.tokens, of.width, WIDENED * of.hidden)
    bill.linear(of.tokens, WIDENED * of.hidden, of.hidden)
    bill.kernels += 1


def _shuffled(bill: Bill[Count], of: Sizes[Count]) -> None:
    bill.norm(of.width)
    _mlp(bill, of)


def _deco(bill: Bill[Count], of: Sizes[Count]) -> None:
    bill.kernels += 3
    _mlp(bill, of)


def _ldp_v2(bill: Bill[Count], of: Sizes[Count]) -> None:
    bill.mlp(of.grid, of.width, of.hidden)
    bill.depthwise(of.tokens, of.hidden, bias=True)
    bill.kernels += 3


def _ldp(bill: Bill[Count], of: Sizes[Count]) -> None:
    bill.mlp(of.grid, of.width, of.hidden)
    squeezed, one = of_each(_squeezed, of.hidden), 1 + 0 * of.grid
    for rows in (of.grid, of.tokens):
        bill.depthwise(rows, of.hidden, bias=False)
        bill.norm(of.hidden)
        bill.linear(one, of.hidden, squeezed)
        bill.linear(one, squeezed, of.hidden)
        bill.linear(rows, of.hidden, of.hidden, bias=False)
        bill.norm(of.hidden)
        bill.kernels += 6


def _squeezed(hidden: int) -> int:
    """A quarter, rounded to eights as MobileNet V3 does it."""
    quarter = hidden // 4
    rounded = max(8, (quarter + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * quarter else rounded


def _stage(bill: Bill[Count], rows: Count, arriving: Count, width: Count) -> None:
    one = 1 + 0 * rows
    for step in range(ABSTRACTOR_BLOCKS):
        entry = arriving if step == 0 else width
        squeezed = of_each(lambda channels: round(channels * 0.25), entry)
        bill.linear(rows, entry, width, bias=False)
        bill.norm(width)
        bill.depthwise(rows, width, bias=False)
        bill.norm(width)
        bill.linear(one, width, squeezed)
        bill.linear(one, squeezed, width)
        bill.linear(rows, width, width, bias=False)
        bill.norm(width)
        shortcut = 1 * (entry != width)
        bill.params += shortcut * (entry * width + 2 * width)
        bill.flops += shortcut * 2 * rows * entry * width
        bill.kernels += shortcut * 2
        bill.kernels += 8


def _c_abstractor(bill: Bill[Count], of: Sizes[Count]) -> None:
    inner = of_each(abstractor_width, of.hidden)
    bill.params += of.grid * of.width
    _stage(bill, of.grid, of.width, inner)
    _stage(bill, of.tokens, inner, inner)
    bill.mlp(of.tokens, inner, of.hidden)
    bill.kernels += 5


def _d_abstractor(bill: Bill[Count], of: Sizes[Count]) -> None:
    inner = of_each(abstractor_width, of.hidden)
    heads = of_each(heads_of, inner)
    bill.linear(of.grid, of.width, inner)
    bill.params += of.grid * inner + of.tokens * (inner + 2)
    for _ in range(DEFORMABLE_LAYERS):
        for _ in range(4):  # queries, keys, values and output of the self-attention
            bill.linear(of.tokens, inner, inner)
        bill.attention(of.tokens, of.tokens, inner)
        bill.linear(of.tokens, inner, heads * DEFORMABLE_POINTS * 2)
        bill.linear(of.tokens, inner, heads * DEFORMABLE_POINTS)
        bill.linear(of.grid, inner, inner)
        bill.linear(of.tokens, inner, inner)
        bill.linear(of.tokens, inner, 4 * inner)
        bill.linear(of.tokens, 4 * inner, inner)
        for _ in range(3):
            bill.norm(inner)
        bill.kernels += 14
    bill.linear(of.tokens, inner, of.hidden)
    bill.kernels += 5


def _q_former(bill: Bill[Count], of: Sizes[Count]) -> None:
    inner = of_each(qformer_width, of.hidden)
    bill.params += of.tokens * inner
    bill.norm(inner)
    for layer in range(QFORMER_LAYERS):
        _asking(bill, of.tokens, of.tokens, inner, inner)
        if layer % 2 == 0:
            _asking(bill, of.tokens, of.grid, of.width, inner)
        bill.linear(of.tokens, inner, 4 * inner)
        bill.linear(of.tokens, 4 * inner, inner)
        bill.norm(inner)
        bill.kernels += 2
    bill.linear(of.tokens, inner, of.hidden)


def _asking(bill: Bill[Count], queries: Count, keys: Count, arriving: Count, inner: Count) -> None:
    """Attention of a Q-Former to itself or to the image, whose tokens are `arriving` wide."""
    bill.linear(queries, inner, inner)
    bill.linear(keys, arriving, inner)
    bill.linear(keys, arriving, inner)
    bill.attention(queries, keys, inner)
    bill.linear(queries, inner, inner)
    bill.norm(inner)
    bill.kernels += 5


def _perceiver(bill: Bill[Count], of: Sizes[Count]) -> None:
    inner = of_each(lambda width: math.prod(perceiver_heads(width)), of.width)
    bill.params += of.tokens * of.width
    for _ in range(PERCEIVER_LAYERS):
        for _ in range(3):
            bill.norm(of.width)
        bill.linear(of.tokens, of.width, inner, bias=False)
        bill.linear(of.grid + of.tokens, of.width, 2 * inner, bias=False)
        bill.attention(of.tokens, of.grid + of.tokens, inner)
        bill.linear(of.tokens, inner, of.width, bias=False)
        bill.linear(of.tokens, of.width, 4 * of.width, bias=False)
        bill.linear(of.tokens, 4 * of.width, of.width, bias=False)
        bill.kernels += 8
    bill.norm(of.width)
    bill.linear(of.tokens, of.width, of.hidden)


def _token_packer(bill: Bill[Count], of: Sizes[Count]) -> None:
    bill.linear(of.tokens, of.width, of.width, bias=False)
    bill.norm(of.width)
    for _ in range(2):
        bill.mlp(of.grid, of.width, of.width)
        bill.norm(of.width)
    for rows in (of.tokens, of.grid, of.grid, of.tokens):
        bill.linear(rows, of.width, of.width)
    bill.attention(of.tokens, of.grid // of.tokens, of.width)
    bill.mlp(of.tokens, of.width, of.hidden)
    bill.kernels += 8


POOLS_ITSELF = {"ldp", "ldp-v2", "c-abstractor", "d-abstractor", "q-former", "perceiver", "token-packer"}
COSTS: dict[str, Callable[[Bill[Any], Sizes[Any]], None]] = {
    "linear": _linear, "mlp": _mlp, "mlp-3": _mlp3, "mlp-wide": _mlp_wide, "pixel-shuffle": _shuffled, "ldp": _ldp,
    "ldp-v2": _ldp_v2, "deco": _deco, "c-abstractor": _c_abstractor, "d-abstractor": _d_abstractor,
    "q-former": _q_former, "perceiver": _perceiver, "token-packer": _token_packer, "cross-attention": _linear,
}  # fmt: skip
