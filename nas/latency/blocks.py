"""The blocks that a candidate's latency is composed of, and what was measured of them. No torch.

A block is the smallest thing that is timed: preprocessing at a resolution, a whole encoder, one projector with its
compression, and the decoder at two or three depths. Depth is a factor, never a new measurement. Decoder blocks are
measured on a grid of lengths; other lengths are interpolated.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from hardware_profiles.profile import LowEnd
from nas.errors import NotMeasuredError
from nas.workload import Workload
from search_spaces import Candidate
from search_spaces.catalogue import encoder

BlockKind = Literal[
    "preprocess", "vision", "projector",
    "shell_prefill", "layer_prefill", "shell_decode", "layer_decode",
    "decoder_prefill", "decoder_decode",
]  # fmt: skip
# Lengths at which decoder blocks are measured: prefill lengths, and contexts of a decode step. A decoder of two layers
# is nearly a line in the prompt's length; attention over the cache is one in the context.
PREFILL_LENGTHS = (8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
SHALLOW_LENGTHS = (16, 64, 256, 1024, 4096, 8192)
CONTEXTS = (16, 256, 1024, 4096, 8192)
DEPTHS = (2, 14)  # of decoders that are compiled whole
# What a candidate may change of its encoder and decoder: no block is timed of these, and none is passed off as one.
UNTIMED_AXES = (
    "encoder_depth", "second_encoder", "tiling", "temporal_factor",
    "lm_ffn", "lm_heads", "lm_experts", "lm_weights", "kv_cache", "attention", "prune_layer",
)  # fmt: skip
PUBLISHED = {name: Candidate.model_fields[name].default for name in UNTIMED_AXES}
PRUNES_BY_ATTENTION = ("visionzip", "prumerge")  # which encoders do not compute otherwise
# Of decoders that run layer by layer. No depth 0: alone in a loop, the vocabulary's head stays in the cache, and is
# faster by a quarter than between layers. A step is memory's work, so that its line has a bend where the weights
# outgrow the cache.
PREFILL_DEPTHS, DECODE_DEPTHS = (2, 20), (2, 6, 20)
NOISE = 0.08
MOST_ABOVE_LEAST = 1.1  # with nothing beside, lower quartiles were 1 to 10 % above minima
PROTOCOL = 2  # part of every key: timings that were taken in another way are not mixed with those of now
WHOLE_DECODER = frozenset({"onnxruntime", "openvino"})  # runtimes that compile the decoder as one graph


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """One measurable block; fields that a kind does not use are empty."""

    kind: BlockKind
    batch: int
    encoder: str = ""
    resolution: int = 0
    projector: str = ""
    compression: str = ""
    compression_factor: int = 1
    lm: str = ""
    length: int = 0  # tokens of a prefill, or the context of a decode step
    depth: int = 0  # layers of a whole decoder

    @property
    def key(self) -> str:
        return _key(self)

    def __str__(self) -> str:
        parts = [self.encoder, self.resolution, self.projector, self.compression, self.lm, self.length, self.depth]
        return " ".join([self.kind, *(str(part) for part in parts if part)])


@lru_cache(maxsize=65536)
def _key(block: BlockSpec) -> str:
    """Composing every candidate of a space asks for the same few keys over and over."""
    text = json.dumps(asdict(block) | {"protocol": PROTOCOL}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class MeasurementContext:
    """What a timing is tied to besides its block: never mixed across any of these."""

    device: str
    runtime: str
    version: str
    dtype: str
    threads: int

    @property
    def key(self) -> str:
        return f"{self.device}|{self.runtime}|{self.version}|{self.dtype}|{self.threads}"

    @staticmethod
    def version_of(key: str) -> str:
        """The runtime's version that a key was made of."""
        return key.split("|")[2]


@dataclass(frozen=True, slots=True)
class BlockTiming:
    """Every raw sample of one block, and the canary of its session; the estimator is a view on them."""

    block: dict[str, Any]
    samples_ms: tuple[float, ...]
    canary_ms: float
    measured_at: str
    noisy: bool  # see `is_noisy`
    quiet_ms: float | None = None  # the calmest canary of its session; `canary_ms` is the busier end of its group
    switches: int = 0  # times that the system took the processor away while the samples were taken
    scale: float = 1.0  # takes a timing of this session to the quietest session of the device
    modelled: float | None = None  # relative error to expect, where the timing was not measured but fitted to others
    estimator: LowEnd = "p25"

    @property
    def value_ms(self) -> float:
        return self.scale * undisturbed(self.samples_ms, self.estimator)

    @property
    def median_ms(self) -> float:
        return self.scale * sorted(self.samples_ms)[len(self.samples_ms) // 2]

    @property
    def calm_canary_ms(self) -> float:
        """What minima of this session are compared by."""
        return self.canary_ms if self.quiet_ms is None else self.quiet_ms

    @property
    def contended(self) -> bool:
        """Other work ran at the same time: a label, never a reason to drop a sample."""
        return self.noisy or self.switches > 3 * len(self.samples_ms)

    def merged(self, later: BlockTiming, noise: float = NOISE) -> BlockTiming:
        """With the samples of another pass over the same block; of each canary the calmer one."""
        samples = (*self.samples_ms, *later.samples_ms)
        return replace(
            later,
            samples_ms=samples,
            noisy=is_noisy(samples, noise),
            canary_ms=min(self.canary_ms, later.canary_ms),
            quiet_ms=min(self.calm_canary_ms, later.calm_canary_ms),
            switches=self.switches + later.switches,
        )


def undisturbed(samples_ms: Sequence[float], estimator: LowEnd = "p25") -> float:
    """What a thing takes when nothing comes between: other work on a shared machine only adds to it.

    The minimum falls with the number of samples (of 50 it was 3 to 4 % below that of 12), and is that of the luckiest
    state of the caches; the lower quartile is used up to where only other work can have raised it.
    """
    least = min(samples_ms)
    if estimator == "min":
        return least
    return min(sorted(samples_ms)[len(samples_ms) // 4], MOST_ABOVE_LEAST * least)


def is_noisy(samples_ms: Sequence[float], noise: float = NOISE) -> bool:
    """Whether the median is more than `noise` above the lower quartile."""
    return sorted(samples_ms)[len(samples_ms) // 2] > (1 + noise) * undisturbed(samples_ms)


def needed(candidate: Candidate, workload: Workload, runtime: str = "torch-eager") -> list[BlockSpec]:
    """The blocks that `compose` reads for this candidate. Raises: NotMeasuredError where no block is of its parts."""
    images = workload.images * workload.batch
    prompt, context = lengths(candidate, workload)
    first = [preprocess_block(candidate, images), vision_block(candidate, images), projector_block(candidate, images)]
    batch, lm = workload.batch, candidate.lm
    return first + [
        block
        for phase, length in (("prefill", prompt), ("decode", context))
        for part in decoder_parts(phase, runtime)
        for block in part.blocks(batch, lm, length)
    ]


def has_blocks(candidate: Candidate, workload: Workload) -> bool:
    """Whether a latency can be composed at all; designs of which none can are left out like unmeasured ones."""
    try:
        lengths(candidate, workload)
    except NotMeasuredError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class DecoderPart:
    """A decoder of one depth that is timed, and its grid of lengths."""

    kind: BlockKind
    grid: tuple[int, ...]
    depth: int

    def blocks(self, batch: int, lm: str, length: int) -> list[BlockSpec]:
        """At the one or two lengths of the grid that enclose `length`."""
        return [
            BlockSpec(self.kind, batch, lm=lm, length=point, depth=self.depth) for point in bracket(length, self.grid)
        ]


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


def depth_shares(depths: Sequence[int], depth: int) -> list[float]:
    """Weight of each measured depth in the time at `depth`: a line through the two that enclose it, or are nearest.

    t(D) = t(a) + (t(b) - t(a)) (D - a) / (b - a).
    """
    right = min(max(bisect_left(depths, depth), 1), len(depths) - 1)
    low, high = depths[right - 1], depths[right]
    share = (depth - low) / (high - low)
    return [1 - share if each == low else share if each == high else 0.0 for each in depths]


def lengths(candidate: Candidate, workload: Workload) -> tuple[int, int]:
    """(prompt length, mean context of a decode step) of one request.

    Raises: NotMeasuredError for designs of which no latency is composed or estimated.
    """
    if candidate.crosses:
        raise NotMeasuredError(
            f"no latency is known of gated cross-attention layers, neither composed nor estimated, but {candidate} "
            "has them; take another projector"
        )
    changed = [name for name, value in PUBLISHED.items() if getattr(candidate, name) != value]
    if candidate.compression in PRUNES_BY_ATTENTION:
        changed.append("compression")
    if changed:
        raise NotMeasuredError(
            f"blocks are of encoders and decoders as published, but {candidate} changes {', '.join(changed)}; "
            "measure it end to end with --how measured"
        )
    tokens = encoder(candidate.encoder).tokens(candidate.resolution, candidate.entering_factor)
    prompt = workload.images * tokens + workload.prompt_tokens
    return prompt, prompt + max(1, workload.new_tokens // 2)


def preprocess_block(candidate: Candidate, batch: int) -> BlockSpec:
    return BlockSpec("preprocess", batch, resolution=candidate.resolution)


def vision_block(candidate: Candidate, batch: int) -> BlockSpec:
    return BlockSpec("vision", batch, encoder=candidate.encoder, resolution=candidate.resolution)


def projector_block(candidate: Candidate, batch: int) -> BlockSpec:
    return BlockSpec(
        "projector", batch, candidate.encoder, candidate.resolution, candidate.projector,
        candidate.compression, candidate.compression_factor, candidate.lm,
    )  # fmt: skip


def bracket(length: int, grid: tuple[int, ...]) -> tuple[int, ...]:
    """The one or two grid lengths around a length; a grid of one point serves every length.

    Raises: ValueError beyond the grid.
    """
    if len(grid) == 1:
        return grid
    if length > grid[-1]:
        raise ValueError(f"a sequence must be at most {grid[-1]} tokens long to be measured, but is {length}")
    place = bisect_left(grid, length)
    if grid[place] == length or place == 0:
        return (grid[place],)
    return grid[place - 1], grid[place]


def interpolate(length: int, values: Mapping[int, float]) -> float:
    """Linear between two measured lengths; the one value where there is only one."""
    if len(values) == 1:
        return next(iter(values.values()))
    (low, at_low), (high, at_high) = sorted(values.items())
    return at_low + (at_high - at_low) * (length - low) / (high - low)
