"""The blocks that a candidate's latency is composed of, and what was measured of them. No torch.

A block is the smallest thing that is timed: preprocessing at a resolution, a whole encoder, one projector with its
compression, the decoder at two or three depths, and what some designs have in between. `nas.latency.terms` says which
of them a candidate consists of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from hardware_profiles.profile import LowEnd
from search_spaces import Candidate

BlockKind = Literal[
    "preprocess", "vision", "join", "projector", "prune",
    "decoder_prefill", "fastv", "cross_prefill", "decoder_decode", "cross_decode",
    "shell_prefill", "layer_prefill", "shell_decode", "layer_decode",
]  # in the order of a request; the last four are those of estimates  # fmt: skip
NOISE = 0.08
MOST_ABOVE_LEAST = 1.25  # with nothing beside, lower quartiles of more than 1 ms were 1 to 18 % above minima
PROTOCOL = 3  # part of every key: timings that were taken in another way are not mixed with those of now


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
    depth: int = 0  # layers of a whole decoder, or gated ones
    width: int = 0  # channels of the tokens that reach a connector; 0 = the encoder's own
    past: int = 0  # tokens in the cache before a prefill
    visual: int = 0  # tokens that gated layers read
    axes: tuple[tuple[str, str | int], ...] = ()  # what else of a candidate changes this block

    def __post_init__(self) -> None:
        """JSON hands lists back."""
        object.__setattr__(self, "axes", tuple((name, value) for name, value in self.axes))

    @property
    def key(self) -> str:
        return _key(self)

    def __str__(self) -> str:
        parts = [self.encoder, self.resolution, self.projector, self.compression, self.lm, self.length, self.depth]
        return " ".join([self.kind, *(str(part) for part in parts if part), *(f"{n}={v}" for n, v in self.axes)])


Terms = list[tuple[float, BlockSpec]]  # a sum of blocks, with the weight of each


def merged(every: Terms) -> Terms:
    """Each block once; those of no weight are not needed."""
    found: dict[BlockSpec, float] = {}
    for share, block in every:
        found[block] = found.get(block, 0.0) + share
    return [(share, block) for block, share in found.items() if abs(share) > 1e-9]


def changed_axes(candidate: Candidate, *names: str) -> tuple[tuple[str, str | int], ...]:
    """Those of the axes that are not off, with their values."""
    return tuple(
        (name, value) for name in names if (value := getattr(candidate, name)) != Candidate.model_fields[name].default
    )


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
    modelled: float | None = None  # e, where it was fitted to others: within value / (1 + e) and value * (1 + e)
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
