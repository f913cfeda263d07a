"""The blocks that a candidate's latency is composed of, and what was measured of them. No torch.

A block is the smallest thing that is timed: preprocessing at a resolution, a whole encoder, one projector with its
compression, one decoder layer, and the decoder without layers (shell). Depth is a factor, never a new measurement.
Decoder blocks are measured on a grid of lengths; other lengths are interpolated.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from nas.workload import Workload
from search_spaces import Candidate
from search_spaces.catalogue import encoder

BlockKind = Literal[
    "preprocess", "vision", "projector", "shell_prefill", "layer_prefill", "shell_decode", "layer_decode"
]
# Lengths at which decoder blocks are measured; the next power-like step keeps linear interpolation within a few %.
LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
DECODE_LENGTHS = (16, 64, 256, 1024, 4096)


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

    @property
    def key(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        parts = [self.encoder, self.resolution, self.projector, self.compression, self.lm, self.length]
        return " ".join([self.kind, *(str(part) for part in parts if part)])


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


@dataclass(frozen=True, slots=True)
class BlockTiming:
    """Every raw sample of one block, and the canary of its session; the estimator is a view on them."""

    block: dict[str, Any]
    samples_ms: tuple[float, ...]
    canary_ms: float
    measured_at: str
    noisy: bool  # 25th percentile more than 8 % above the minimum

    @property
    def value_ms(self) -> float:
        """The minimum: noise on a shared machine is one-sided."""
        return min(self.samples_ms)

    @property
    def median_ms(self) -> float:
        return sorted(self.samples_ms)[len(self.samples_ms) // 2]


def needed(candidate: Candidate, workload: Workload) -> list[BlockSpec]:
    """The blocks that `compose` reads for this candidate."""
    batch = workload.batch
    images = workload.images * batch
    first = [preprocess_block(candidate, images), vision_block(candidate, images), projector_block(candidate, images)]
    prompt, context = lengths(candidate, workload)
    prefill = [
        BlockSpec(kind, batch, lm=candidate.lm, length=length)
        for length in bracket(prompt, LENGTHS)
        for kind in ("shell_prefill", "layer_prefill")
    ]
    decode = [
        BlockSpec(kind, batch, lm=candidate.lm, length=length)
        for length in bracket(context, DECODE_LENGTHS)
        for kind in ("shell_decode", "layer_decode")
    ]
    return first + prefill + decode


def lengths(candidate: Candidate, workload: Workload) -> tuple[int, int]:
    """(prompt length, mean context of a decode step) of one request."""
    tokens = encoder(candidate.encoder).tokens(candidate.resolution, candidate.compression_factor)
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
    """The one or two grid lengths around a length. Raises: ValueError beyond the grid."""
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
