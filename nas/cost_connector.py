"""Closed-form cost of what lies between encoder and language model, for one grid of tokens. No torch.

Every part is a list of matrices that run on a number of rows; parameters, FLOPs (2 x multiply-adds) and kernels are
read off that one list. Norms, activations and pooling have kernels but no FLOPs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from search_spaces.catalogue import EncoderSpec

ABSTRACTOR_BLOCKS = 3  # RegNet blocks before and after the pooling of Honeybee's C-Abstractor
DEFORMABLE_LAYERS, DEFORMABLE_POINTS = 6, 4  # of its D-Abstractor
QFORMER_LAYERS = 12  # BERT-base
PERCEIVER_LAYERS = 6  # Flamingo
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


@dataclass(slots=True)
class Bill:
    """What a connector costs; the methods add to it."""

    params: int = 0
    flops: int = 0
    kernels: int = 0

    def linear(self, rows: int, arriving: int, leaving: int, *, bias: bool = True) -> None:
        """A matrix on so many rows."""
        self.params += arriving * leaving + leaving * bias
        self.flops += 2 * rows * arriving * leaving
        self.kernels += 1

    def norm(self, width: int) -> None:
        self.params += 2 * width
        self.kernels += 1

    def depthwise(self, rows: int, width: int, *, bias: bool) -> None:
        """A 3 x 3 kernel a channel."""
        self.params += (9 + bias) * width
        self.flops += 18 * rows * width
        self.kernels += 1

    def attention(self, queries: int, keys: int, width: int) -> None:
        self.flops += 4 * queries * keys * width
        self.kernels += 1

    def mlp(self, rows: int, arriving: int, leaving: int, depth: int = 2) -> None:
        """Linear, then an activation and Linear, depth - 1 times."""
        for step in range(depth):
            self.linear(rows, arriving if step == 0 else leaving, leaving)
        self.kernels += depth - 1


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of one connector: tokens of the grid, tokens that leave, their width, and that of the language model."""

    grid: int
    tokens: int
    width: int
    hidden: int


def connector_bill(
    projector: str, compression: str, factor: int, width: int, hidden: int, grid_tokens: int,
    encoder: EncoderSpec | None = None,
) -> Bill:  # fmt: skip
    """Of one grid of `grid_tokens` tokens of `width`; pruning by the attention of `encoder` is counted here, too."""
    bill = Bill()
    tokens = grid_tokens // factor
    if compression in {"visionzip", "prumerge"}:
        assert encoder is not None
        _pruning(bill, compression, grid_tokens, tokens, encoder)
    elif compression == "tome":
        _merging(bill, grid_tokens, tokens, width)
    elif projector not in {"ldp", "ldp-v2", "deco"} and compression not in {"none", "queries", "fastv"}:
        bill.kernels += 3  # to a grid, the method, and back
    arriving = grid_tokens if compression == "fastv" or projector in POOLS_ITSELF else tokens
    channels = width * (factor if compression == "pixel-shuffle" else 1)
    leaving = grid_tokens if compression == "fastv" else tokens
    COSTS[projector](bill, Sizes(arriving, leaving, channels, hidden))
    return bill


def connector_cost(
    projector: str, compression: str, factor: int, spec: EncoderSpec, hidden: int, resolution: int, width: int = 0
) -> tuple[int, int]:
    """(parameters, FLOPs) for one grid of an encoder's tokens; `width` where they are wider than its own."""
    bill = connector_bill(projector, compression, factor, width or spec.width, hidden, spec.tokens(resolution), spec)
    return bill.params, bill.flops


def _merging(bill: Bill, tokens: int, left: int, width: int) -> None:
    """Rounds of bipartite matching, each of at most half of the tokens."""
    while tokens > left:
        bill.flops += 2 * -(-tokens // 2) * (tokens // 2) * width
        bill.kernels += 20
        tokens -= min(tokens // 2, tokens - left)


def _pruning(bill: Bill, method: str, grid: int, left: int, encoder: EncoderSpec) -> None:
    """Scores of the class token (or of every token), then what is merged into the kept ones."""
    keys = grid + encoder.prefix_tokens
    queries = 1 if encoder.class_token and encoder.prefix_tokens else keys
    bill.flops += 2 * queries * keys * encoder.width
    bill.kernels += 30
    if method == "prumerge":
        kept = max(1, left - 1)
        bill.flops += 4 * kept * (grid - kept) * encoder.width
    elif left > 1:
        contextual = max(1, round(left * CONTEXTUAL))
        bill.flops += 2 * (grid - left) * contextual * (encoder.width + encoder.width // (encoder.heads or 1))


def _linear(bill: Bill, of: Sizes) -> None:
    bill.linear(of.tokens, of.width, of.hidden)


def _mlp(bill: Bill, of: Sizes) -> None:
    bill.mlp(of.tokens, of.width, of.hidden)


def _mlp3(bill: Bill, of: Sizes) -> None:
    bill.mlp(of.tokens, of.width, of.hidden, 3)


def _shuffled(bill: Bill, of: Sizes) -> None:
    bill.norm(of.width)
    _mlp(bill, of)


def _deco(bill: Bill, of: Sizes) -> None:
    bill.kernels += 3
    _mlp(bill, of)


def _ldp_v2(bill: Bill, of: Sizes) -> None:
    bill.mlp(of.grid, of.width, of.hidden)
    bill.depthwise(of.tokens, of.hidden, bias=True)
    bill.kernels += 3


def _ldp(bill: Bill, of: Sizes) -> None:
    bill.mlp(of.grid, of.width, of.hidden)
    quarter = of.hidden // 4
    rounded = max(8, (quarter + 4) // 8 * 8)
    squeezed = rounded + 8 if rounded < 0.9 * quarter else rounded
    for rows in (of.grid, of.tokens):
        bill.depthwise(rows, of.hidden, bias=False)
        bill.norm(of.hidden)
        bill.linear(1, of.hidden, squeezed)
        bill.linear(1, squeezed, of.hidden)
        bill.linear(rows, of.hidden, of.hidden, bias=False)
        bill.norm(of.hidden)
        bill.kernels += 6


def _stage(bill: Bill, rows: int, arriving: int, width: int) -> None:
    for step in range(ABSTRACTOR_BLOCKS):
        entry = arriving if step == 0 else width
        squeezed = round(entry * 0.25)
        bill.linear(rows, entry, width, bias=False)
        bill.norm(width)
        bill.depthwise(rows, width, bias=False)
        bill.norm(width)
        bill.linear(1, width, squeezed)
        bill.linear(1, squeezed, width)
        bill.linear(rows, width, width, bias=False)
        bill.norm(width)
        if entry != width:
            bill.linear(rows, entry, width, bias=False)
            bill.norm(width)
        bill.kernels += 8


def _c_abstractor(bill: Bill, of: Sizes) -> None:
    inner = abstractor_width(of.hidden)
    bill.params += of.grid * of.width
    _stage(bill, of.grid, of.width, inner)
    _stage(bill, of.tokens, inner, inner)
    bill.mlp(of.tokens, inner, of.hidden)
    bill.kernels += 5


def _d_abstractor(bill: Bill, of: Sizes) -> None:
    inner = abstractor_width(of.hidden)
    heads = heads_of(inner)
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


def _q_former(bill: Bill, of: Sizes) -> None:
    inner = qformer_width(of.hidden)
    bill.params += of.tokens * inner
    bill.norm(inner)
    for layer in range(QFORMER_LAYERS):
        for keys, arriving in ((of.tokens, inner), *([(of.grid, of.width)] if layer % 2 == 0 else [])):
            bill.linear(of.tokens, inner, inner)
            bill.linear(keys, arriving, inner)
            bill.linear(keys, arriving, inner)
            bill.attention(of.tokens, keys, inner)
            bill.linear(of.tokens, inner, inner)
            bill.norm(inner)
            bill.kernels += 5
        bill.linear(of.tokens, inner, 4 * inner)
        bill.linear(of.tokens, 4 * inner, inner)
        bill.norm(inner)
        bill.kernels += 2
    bill.linear(of.tokens, inner, of.hidden)


def _perceiver(bill: Bill, of: Sizes) -> None:
    heads, size = perceiver_heads(of.width)
    inner = heads * size
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


def _token_packer(bill: Bill, of: Sizes) -> None:
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
COSTS: dict[str, Callable[[Bill, Sizes], None]] = {
    "linear": _linear, "mlp": _mlp, "mlp-3": _mlp3, "pixel-shuffle": _shuffled, "ldp": _ldp, "ldp-v2": _ldp_v2,
    "deco": _deco, "c-abstractor": _c_abstractor, "d-abstractor": _d_abstractor, "q-former": _q_former,
    "perceiver": _perceiver, "token-packer": _token_packer, "cross-attention": _linear,
}  # fmt: skip
