"""The decoder's part of a request as weighted blocks, at any depth, length and cache. No torch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from nas.cost_cross import CrossStack
from nas.cost_request import RequestTokens
from nas.errors import NotMeasuredError
from nas.latency.blocks import BlockKind, BlockSpec, Terms, changed_axes, merged
from nas.workload import Workload
from search_spaces import Candidate
from search_spaces.catalogue import language_model

# Lengths at which decoder blocks are measured: prefill lengths, and contexts of a decode step. A decoder of two layers
# is nearly a line in the prompt's length; attention over the cache is one in the context.
PREFILL_LENGTHS = (8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
SHALLOW_LENGTHS = (16, 64, 256, 1024, 4096, 8192)
CONTEXTS = (16, 256, 1024, 4096, 8192)
# Of decoders that are compiled whole: in prefill, the first layers cost a tenth more than those after them.
WHOLE_PREFILL_DEPTHS, WHOLE_DECODE_DEPTHS = (2, 6, 14), (2, 14)
# Of decoders that run layer by layer. No depth 0: alone in a loop, the vocabulary's head stays in the cache, and is
# faster by a quarter than between layers. A step is memory's work, so that its line has a bend where the weights
# outgrow the cache.
PREFILL_DEPTHS, DECODE_DEPTHS = (2, 20), (2, 6, 20)
CROSS_LAYERS = 4  # gated layers that are timed in a row
WHOLE_DECODER = frozenset({"onnxruntime", "openvino"})  # runtimes that compile the decoder as one graph
DECODER_AXES = ("lm_ffn", "lm_heads", "lm_experts", "lm_weights", "kv_cache", "attention")


@dataclass(frozen=True, slots=True)
class DecoderPart:
    """A decoder of one depth that is timed, and its grid of lengths."""

    kind: BlockKind
    grid: tuple[int, ...]
    depth: int


def decoder_parts(phase: str, runtime: str) -> tuple[DecoderPart, ...]:
    """Whole decoders of two or three depths, of which any other follows by `depth_shares`.

    Single layers in a loop of their own came out 5 % too fast.
    """
    prefill = phase == "prefill"
    kind: BlockKind = "decoder_prefill" if prefill else "decoder_decode"
    grid = PREFILL_LENGTHS if prefill else CONTEXTS
    if runtime in WHOLE_DECODER:
        depths = WHOLE_PREFILL_DEPTHS if prefill else WHOLE_DECODE_DEPTHS
        return tuple(DecoderPart(kind, grid, depth) for depth in depths)
    shallow, *deeper = PREFILL_DEPTHS if prefill else DECODE_DEPTHS
    first = DecoderPart(kind, SHALLOW_LENGTHS if prefill else grid, shallow)
    return first, *(DecoderPart(kind, grid, depth) for depth in deeper)


def prefill_terms(candidate: Candidate, workload: Workload, found: RequestTokens[int], runtime: str) -> Terms:
    stack = _Stack(candidate, workload.batch, "prefill", runtime, found.past)
    every = stack.pruned(found.prompt, found.dropped)
    if found.dropped:
        for length, share in length_shares(found.prompt, SHALLOW_LENGTHS):
            every.append((share, BlockSpec("fastv", workload.batch, lm=candidate.lm, length=length, axes=stack.axes)))
    return every + _crossing(candidate, workload.batch, "cross_prefill", workload.prompt_tokens, found.visual)


def decode_terms(candidate: Candidate, workload: Workload, found: RequestTokens[int], runtime: str) -> Terms:
    every = _Stack(candidate, workload.batch, "decode", runtime).pruned(found.context, found.dropped)
    return every + _crossing(candidate, workload.batch, "cross_decode", 1, found.visual)


class _Stack:
    """The decoder of a candidate in one phase, at any length and depth."""

    def __init__(self, candidate: Candidate, batch: int, phase: str, runtime: str, past: int = 0) -> None:
        self.lm, self.batch, self.past = candidate.lm, batch, past
        self.depth, self.prune_layer = candidate.lm_depth, candidate.prune_layer
        self.parts = decoder_parts(phase, runtime)
        several = len(set(language_model(candidate.lm).layer_pattern)) > 1
        self.axes = changed_axes(candidate, *DECODER_AXES, *(["lm_layers"] if several else []))

    def pruned(self, length: int, dropped: int) -> Terms:
        """As if every layer saw the shortened sequence, and what the first layers take more on the whole one."""
        if not dropped:
            return self.at(length, self.depth)
        short = length - dropped
        more = self.at(length, self.prune_layer)
        less = [(-share, block) for share, block in self.at(short, self.prune_layer)]
        return merged([*self.at(short, self.depth), *more, *less])

    def at(self, length: int, depth: int) -> Terms:
        """Between the depths and the lengths that are measured."""
        shares = depth_shares([part.depth for part in self.parts], depth)
        pasts = length_shares(self.past, CONTEXTS) if self.past else [(0, 1.0)]
        return [
            (share * weight * old, self._block(part, point, past))
            for part, share in zip(self.parts, shares, strict=True)
            for point, weight in length_shares(length, part.grid)
            for past, old in pasts
        ]

    def _block(self, part: DecoderPart, length: int, past: int) -> BlockSpec:
        return BlockSpec(part.kind, self.batch, lm=self.lm, length=length, depth=part.depth, past=past, axes=self.axes)


def _crossing(candidate: Candidate, batch: int, kind: BlockKind, length: int, visual: int) -> Terms:
    """Gated layers between those of the decoder; what they take is a line in the tokens that they read."""
    if not candidate.crosses:
        return []
    count = CrossStack(0, candidate.lm_depth).count / CROSS_LAYERS
    return [
        (count * share, BlockSpec(kind, batch, lm=candidate.lm, length=length, depth=CROSS_LAYERS, visual=point))
        for point, share in length_shares(visual, SHALLOW_LENGTHS)
    ]


def depth_shares(depths: Sequence[int], depth: int) -> list[float]:
    """Weight of each measured depth in the time at `depth`: a line through the two that enclose it, or are nearest.

    t(D) = t(a) + (t(b) - t(a)) (D - a) / (b - a).
    """
    right = min(max(bisect_left(depths, depth), 1), len(depths) - 1)
    low, high = depths[right - 1], depths[right]
    share = (depth - low) / (high - low)
    return [1 - share if each == low else share if each == high else 0.0 for each in depths]


def length_shares(length: int, grid: tuple[int, ...]) -> list[tuple[int, float]]:
    """(measured length, weight): linear between the two that enclose `length`; the shortest for all below it.

    Raises: NotMeasuredError beyond the grid.
    """
    if length > grid[-1]:
        raise NotMeasuredError(
            f"sequences of at most {grid[-1]} tokens are measured, but this one has {length}; compress more, "
            "or take a shorter workload"
        )
    place = bisect_left(grid, length)
    if grid[place] == length or place == 0:
        return [(grid[place], 1.0)]
    low, high = grid[place - 1], grid[place]
    share = (length - low) / (high - low)
    return [(low, 1 - share), (high, share)]
