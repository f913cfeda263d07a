"""A candidate's latency as weighted sums of blocks: which blocks it consists of, and how much of each. No torch.

What may vary freely is a weight, never a new measurement: depth of encoder and decoder, length of prompt and cache,
pictures and sets of tokens (a batch), and what FastV drops. What changes a module is in its block's key.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.cost_connector import IN_ENCODER, PRUNES_BY_ATTENTION
from nas.cost_cross import CrossStack
from nas.cost_request import request_tokens
from nas.cost_vision import layout, second_encoder, token_width
from nas.errors import NotMeasuredError
from nas.latency.blocks import BlockKind, BlockSpec
from nas.workload import Workload
from search_spaces import Candidate
from search_spaces.catalogue import encoder, language_model

Terms = list[tuple[float, BlockSpec]]
# Lengths at which decoder blocks are measured: prefill lengths, and contexts of a decode step. A decoder of two layers
# is nearly a line in the prompt's length; attention over the cache is one in the context.
PREFILL_LENGTHS = (8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
SHALLOW_LENGTHS = (16, 64, 256, 1024, 4096, 8192)
CONTEXTS = (16, 256, 1024, 4096, 8192)
DEPTHS = (2, 14)  # of decoders that are compiled whole
# Of decoders that run layer by layer. No depth 0: alone in a loop, the vocabulary's head stays in the cache, and is
# faster by a quarter than between layers. A step is memory's work, so that its line has a bend where the weights
# outgrow the cache.
PREFILL_DEPTHS, DECODE_DEPTHS = (2, 20), (2, 6, 20)
CROSS_LAYERS = 4  # gated layers that are timed in a row
WHOLE_DECODER = frozenset({"onnxruntime", "openvino"})  # runtimes that compile the decoder as one graph
DECODER_AXES = ("lm_ffn", "lm_heads", "lm_experts", "lm_weights", "kv_cache", "attention")
# What runs through hooks and kernels of torch's own, which other runtimes do not trace.
EAGER_ONLY = ("second_encoder", "temporal_factor", "prune_layer", "lm_experts", "lm_weights", "kv_cache", "attention")


@dataclass(frozen=True, slots=True)
class Amounts:
    """What one request of a workload makes of a candidate, each of the `batch` requests alike."""

    photos: int
    pictures: int  # that each encoder sees
    grids: int  # sets of tokens that pass through compression and projector
    visual: int  # tokens that come out
    dropped: int  # of them, by fastv
    prompt: int  # positions that a prefill computes
    past: int  # positions that are in the cache before
    context: int  # mean positions that a decode step attends to


def amounts(candidate: Candidate, workload: Workload) -> Amounts:
    """In closed form."""
    spec = encoder(candidate.encoder)
    tokens = spec.tokens(candidate.resolution, candidate.entering_factor)
    left = spec.tokens(candidate.resolution, candidate.compression_factor)
    dropped = tokens - left if candidate.compression == "fastv" else 0
    found = request_tokens(workload, layout(candidate), tokens, dropped, int(candidate.crosses))
    return Amounts(
        photos=workload.images * workload.frames,
        context=found.past + found.prompt + max(1, workload.new_tokens // 2),
        **found._asdict(),
    )


def needed(candidate: Candidate, workload: Workload, runtime: str = "torch-eager") -> list[BlockSpec]:
    """The blocks that `compose` reads for this candidate. Raises: NotMeasuredError where it has parts without any."""
    every = terms(candidate, workload, runtime).values()
    return list(dict.fromkeys(block for part in every for _, block in part))


def has_blocks(candidate: Candidate, workload: Workload, runtime: str = "torch-eager") -> bool:
    """Whether a latency can be composed at all; designs of which none can are left out like unmeasured ones."""
    try:
        terms(candidate, workload, runtime)
    except NotMeasuredError:
        return False
    return True


def terms(candidate: Candidate, workload: Workload, runtime: str = "torch-eager") -> Mapping[str, Terms]:
    """By part of a request: (weight, block). Raises: NotMeasuredError."""
    check_runs(candidate, workload, runtime)
    found = amounts(candidate, workload)
    return {
        **seen_terms(candidate, workload, found),
        "prefill_ms": _prefill(candidate, workload, found, runtime),
        "tpot_ms": _decode(candidate, workload, found, runtime),
    }


def check_runs(candidate: Candidate, workload: Workload, runtime: str) -> None:
    """Raises: NotMeasuredError where this candidate has no requests of this workload in this runtime."""
    if workload.turns > 1 and (candidate.crosses or candidate.prune_layer):
        raise NotMeasuredError(
            f"a context of several turns must be read in one way, but {candidate} drops its visual tokens or reads "
            f"them beside the sequence; {workload.name} has {workload.turns} turns: take a workload of one turn"
        )
    if runtime == "torch-eager":
        return
    changed = [name for name in EAGER_ONLY if getattr(candidate, name) != Candidate.model_fields[name].default]
    if candidate.compression in IN_ENCODER:
        changed.append("compression")
    if candidate.tiling == "s2":
        changed.append("tiling")
    if candidate.crosses:
        changed.append("projector")
    if changed:
        raise NotMeasuredError(
            f"runtime {runtime} does not run what {candidate} changes ({', '.join(changed)}); take torch-eager"
        )


def seen_terms(candidate: Candidate, workload: Workload, found: Amounts) -> dict[str, Terms]:
    """What comes before the language model."""
    batch = workload.batch
    return {
        "preprocess_ms": [(1.0, preprocess_block(candidate, batch * found.photos))],
        "vision_ms": vision_terms(candidate, batch * found.pictures),
        "projector_ms": [(1.0, projector_block(candidate, batch * found.grids, workload.frames))],
    }


def changes(candidate: Candidate, *names: str) -> tuple[tuple[str, str | int], ...]:
    """Those of the axes that are not off, with their values."""
    return tuple(
        (name, value) for name in names if (value := getattr(candidate, name)) != Candidate.model_fields[name].default
    )


def preprocess_block(candidate: Candidate, batch: int) -> BlockSpec:
    """Of `batch` photos, cut into tiles where the candidate has some."""
    return BlockSpec("preprocess", batch, resolution=candidate.resolution, axes=changes(candidate, "tiling", "tiles"))


def vision_terms(candidate: Candidate, pictures: int) -> Terms:
    """Encoders, each alone; how their tokens join, or how its own attention prunes them."""
    if candidate.compression == "tome-blocks":
        return [(1.0, _merging_encoder(candidate, pictures))]
    found = _encoder_terms(candidate.encoder, candidate.resolution, pictures, candidate.encoder_depth)
    if second_encoder(candidate) is not None:
        found += _encoder_terms(candidate.second_encoder, candidate.resolution, pictures)
    joined = changes(candidate, "second_encoder", "fusion")
    joined += changes(candidate, "tiling", "tiles") if candidate.tiling == "s2" else ()
    if joined:
        found.append((1.0, BlockSpec("join", pictures, candidate.encoder, candidate.resolution, axes=joined)))
    if candidate.compression in PRUNES_BY_ATTENTION:
        pruned = BlockSpec(
            "prune", pictures, candidate.encoder, candidate.resolution, compression=candidate.compression,
            compression_factor=candidate.compression_factor,
        )  # fmt: skip
        found.append((1.0, pruned))
    return found


def _merging_encoder(candidate: Candidate, pictures: int) -> BlockSpec:
    """Every depth and factor merges along a course of its own."""
    return BlockSpec(
        "vision", pictures, candidate.encoder, candidate.resolution, compression=candidate.compression,
        compression_factor=candidate.compression_factor, axes=changes(candidate, "encoder_depth"),
    )  # fmt: skip


def _encoder_terms(name: str, resolution: int, pictures: int, depth: int = 0) -> Terms:
    """Cut after a block: on the line through the whole encoder and a third of its blocks."""
    whole = BlockSpec("vision", pictures, encoder=name, resolution=resolution)
    deepest = encoder(name).blocks()
    if not depth:
        return [(1.0, whole)]
    shallow = max(1, deepest // 3)
    cut = BlockSpec("vision", pictures, encoder=name, resolution=resolution, axes=(("encoder_depth", shallow),))
    share = (depth - shallow) / (deepest - shallow)
    return _merged([(share, whole), (1 - share, cut)])


def projector_block(candidate: Candidate, batch: int, frames: int = 1) -> BlockSpec:
    """Of `batch` sets of tokens. What prunes before or after it leaves fewer tokens for it, or all."""
    spec, merged = encoder(candidate.encoder), min(frames, candidate.temporal_factor)
    width = token_width(candidate, spec, second_encoder(candidate))
    compression, factor = candidate.compression, candidate.compression_factor
    if compression == "fastv":
        compression, factor = "none", 1
    elif compression in IN_ENCODER:
        compression = "pruned"
    return BlockSpec(
        "projector", batch, candidate.encoder, candidate.resolution, candidate.projector, compression, factor,
        candidate.lm, width=0 if width == spec.width else width,
        axes=(("temporal_factor", merged),) if merged > 1 else (),
    )  # fmt: skip


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
        return tuple(DecoderPart(kind, grid, depth) for depth in DEPTHS)
    shallow, *deeper = PREFILL_DEPTHS if prefill else DECODE_DEPTHS
    first = DecoderPart(kind, SHALLOW_LENGTHS if prefill else grid, shallow)
    return first, *(DecoderPart(kind, grid, depth) for depth in deeper)


def _prefill(candidate: Candidate, workload: Workload, found: Amounts, runtime: str) -> Terms:
    stack = _Stack(candidate, workload.batch, "prefill", runtime, found.past)
    every = stack.pruned(found.prompt, found.dropped)
    if found.dropped:
        for length, share in length_shares(found.prompt, SHALLOW_LENGTHS):
            every.append((share, BlockSpec("fastv", workload.batch, lm=candidate.lm, length=length, axes=stack.axes)))
    return every + _crossing(candidate, workload.batch, "cross_prefill", workload.prompt_tokens, found.visual)


def _decode(candidate: Candidate, workload: Workload, found: Amounts, runtime: str) -> Terms:
    every = _Stack(candidate, workload.batch, "decode", runtime).pruned(found.context, found.dropped)
    return every + _crossing(candidate, workload.batch, "cross_decode", 1, found.visual)


class _Stack:
    """The decoder of a candidate in one phase, at any length and depth."""

    def __init__(self, candidate: Candidate, batch: int, phase: str, runtime: str, past: int = 0) -> None:
        self.lm, self.batch, self.past = candidate.lm, batch, past
        self.depth, self.prune_layer = candidate.lm_depth, candidate.prune_layer
        self.parts = decoder_parts(phase, runtime)
        several = len(set(language_model(candidate.lm).layer_pattern)) > 1
        self.axes = changes(candidate, *DECODER_AXES, *(["lm_layers"] if several else []))

    def pruned(self, length: int, dropped: int) -> Terms:
        """As if every layer saw the shortened sequence, and what the first layers take more on the whole one."""
        if not dropped:
            return self.at(length, self.depth)
        short = length - dropped
        more = self.at(length, self.prune_layer)
        less = [(-share, block) for share, block in self.at(short, self.prune_layer)]
        return _merged([*self.at(short, self.depth), *more, *less])

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


def _merged(every: Terms) -> Terms:
    """Each block once; those of no weight are not needed."""
    found: dict[BlockSpec, float] = {}
    for share, block in every:
        found[block] = found.get(block, 0.0) + share
    return [(share, block) for block, share in found.items() if abs(share) > 1e-9]


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
