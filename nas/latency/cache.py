"""Nothing is measured twice: blocks come from the cache where a comparable session measured them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from hardware_profiles import HardwareProfile
from nas.latency.blocks import BlockSpec, BlockTiming, MeasurementContext

CONTENDED = 2.0  # a median this far above the minimum: the minimum itself may not be clean
CANARY_TOLERANCE = 0.25  # timings of a session that was slower than now by more are measured again


class TimingStore(Protocol):
    """Where timings are kept between runs."""

    def block_timings(self, context: MeasurementContext) -> dict[str, BlockTiming]: ...

    def add_block_timings(self, context: MeasurementContext, timings: Mapping[str, BlockTiming]) -> None: ...


def comparable(timings: Mapping[str, BlockTiming], canary: float) -> dict[str, BlockTiming]:
    """The timings of sessions in which the machine was about as fast as `canary` says it is now, or faster.

    Noise is one-sided: a session faster than now was quieter, and stays the better answer. What is measured while the
    machine is busy bears a slow canary or widely spread samples, so that the next session replaces it.
    """
    return {
        key: timing
        for key, timing in timings.items()
        if timing.canary_ms <= canary * (1 + CANARY_TOLERANCE) and timing.median_ms <= CONTENDED * timing.value_ms
    }


def ensure_blocks(
    blocks: Iterable[BlockSpec],
    store: TimingStore,
    context: MeasurementContext,
    *,
    last_level_cache_mib: float | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    canary: Callable[[int], float] | None = None,
) -> dict[str, BlockTiming]:
    """Timings of all blocks by key; only what the store lacks is measured, then stored.

    `canary` tells the machine's speed now from the number of threads; None = run it.
    """
    from nas.latency.measure import canary_at, measure_blocks

    wanted = {block.key: block for block in blocks}
    stored = store.block_timings(context)
    found = {key: stored[key] for key in wanted if key in stored}
    known = comparable(found, (canary or canary_at)(context.threads)) if found else {}
    missing: Sequence[BlockSpec] = [block for key, block in wanted.items() if key not in known]
    if missing:
        measured = measure_blocks(
            missing, threads=context.threads, last_level_cache_mib=last_level_cache_mib, progress=progress
        )
        fresh = {block.key: timing for block, timing in zip(missing, measured, strict=True)}
        store.add_block_timings(context, fresh)
        known |= fresh
    return known


def device_timings(
    profile: HardwareProfile,
    blocks: Iterable[BlockSpec],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, BlockTiming]:
    """Timings of the blocks on this machine, from the user's cache where a comparable session left them there."""
    from nas.latency.measure import context_here
    from nas.store import Store

    store = Store.user_cache()
    try:
        return ensure_blocks(
            blocks,
            store,
            context_here(profile),
            last_level_cache_mib=profile.memory.last_level_cache_mib,
            progress=progress,
        )
    finally:
        store.close()
