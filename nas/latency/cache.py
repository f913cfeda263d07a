"""Nothing is measured twice: blocks come from the cache where a comparable session measured them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from nas.latency.blocks import BlockSpec, BlockTiming, MeasurementContext

CONTENDED = 2.0  # a median this far above the minimum: the minimum itself may not be clean
CANARY_TOLERANCE = 0.25  # timings of a session that was slower than now by more are measured again

Progress = Callable[[int, int], None]
Measure = Callable[[list[BlockSpec], Callable[[dict[str, BlockTiming]], None]], None]


class TimingStore(Protocol):
    """Where timings are kept between runs."""

    def block_timings(self, context: MeasurementContext) -> dict[str, BlockTiming]: ...

    def add_block_timings(self, context: MeasurementContext, timings: Mapping[str, BlockTiming]) -> None: ...

    def last_version(self, context: MeasurementContext) -> str | None: ...


def comparable(
    timings: Mapping[str, BlockTiming], canary: float, tolerance: float = CANARY_TOLERANCE
) -> dict[str, BlockTiming]:
    """The timings of sessions in which the machine was about as fast as `canary` says it is now, or faster.

    Noise is one-sided: a session faster than now was quieter, and stays the better answer. What is measured while the
    machine is busy bears a slow canary or widely spread samples, so that the next session replaces it.
    """
    return {
        key: timing
        for key, timing in timings.items()
        if timing.canary_ms <= canary * (1 + tolerance) and timing.median_ms <= CONTENDED * timing.value_ms
    }


def quiet(timings: Mapping[str, BlockTiming]) -> dict[str, BlockTiming]:
    """All timings as they would have been in the quietest of their sessions, by the sessions' canaries."""
    if not timings:
        return {}
    canaries = {key: timing.calm_canary_ms for key, timing in timings.items()}
    best = min(canaries.values())
    return {key: replace(timing, scale=best / canaries[key]) for key, timing in timings.items()}


def ensure_blocks(
    blocks: Iterable[BlockSpec],
    store: TimingStore,
    context: MeasurementContext,
    measure: Measure,
    canary: Callable[[], float],
    progress: Progress = lambda done, total: None,
    tolerance: float = CANARY_TOLERANCE,
) -> dict[str, BlockTiming]:
    """Timings of all blocks by key; only what the store lacks is measured, and stored group by group.

    `canary` tells the device's speed now, in ms.
    """
    wanted = {block.key: block for block in blocks}
    stored = store.block_timings(context)
    found = {key: stored[key] for key in wanted if key in stored}
    known = comparable(found, canary(), tolerance) if found else {}
    missing = [block for key, block in wanted.items() if key not in known]

    def keep(fresh: dict[str, BlockTiming]) -> None:
        store.add_block_timings(context, fresh)
        known.update(fresh)
        progress(len(known) - len(wanted) + len(missing), len(missing))

    if missing:
        measure(missing, keep)
    return known
