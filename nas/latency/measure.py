"""Measures blocks by the protocol: canary, interleaved rounds in random order, stop rule, every sample kept."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import torch

from hardware_profiles import HardwareProfile
from nas.latency.blocks import BlockSpec, BlockTiming, MeasurementContext
from nas.latency.jobs import Job, JobFactory

Clock = Callable[[], float]
LEAST_ROUNDS, MOST_ROUNDS, CALM_ROUNDS, CALM_GAIN = 8, 20, 3, 0.01
SHORTEST_S = 0.002  # shorter jobs are repeated inside one sample
NOISY = 1.08
CANARY_SIZE, CANARY_SAMPLES = 512, 20
GROUP = 48  # blocks held in memory at once


def context_here(profile: HardwareProfile) -> MeasurementContext:
    """What timings of this device made by this process are tied to."""
    version = torch.__version__.split("+")[0]
    return MeasurementContext(profile.id, "torch-eager", version, "fp32", profile.measuring_threads)


def canary_ms(clock: Clock = time.perf_counter) -> float:
    """Fastest of some 512^3 matrix products: says how fast the machine is just now."""
    matrix = torch.ones(CANARY_SIZE, CANARY_SIZE)
    return 1e3 * min(_timed(lambda: matrix @ matrix, clock) for _ in range(CANARY_SAMPLES))


def canary_at(threads: int) -> float:
    """The canary with as many threads as the blocks are measured with; the caller's number of threads is kept."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return canary_ms()
    finally:
        torch.set_num_threads(before)


def measure_blocks(
    blocks: Sequence[BlockSpec],
    *,
    threads: int,
    last_level_cache_mib: float | None = None,
    clock: Clock = time.perf_counter,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[BlockTiming]:
    """Timings of the blocks, in their order. `progress` hears of (blocks done, blocks in all)."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    factory = JobFactory((last_level_cache_mib or 32.0) * 2**20)
    samples: dict[str, list[float]] = {}
    try:
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            canary: dict[str, float] = {}
            earlier = canary_ms(clock)
            for start in range(0, len(blocks), GROUP):
                jobs = [factory.job(block) for block in blocks[start : start + GROUP]]
                samples |= run_rounds(jobs, clock, random.Random(seed + start))
                later = canary_ms(clock)
                canary |= {job.block.key: max(earlier, later) for job in jobs}  # the busier end of the group
                earlier = later
                progress(min(start + GROUP, len(blocks)), len(blocks))
    finally:
        torch.set_num_threads(before)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return [_timing(block, samples[block.key], canary[block.key], now) for block in blocks]


def run_rounds(jobs: Sequence[Job], clock: Clock, generator: random.Random) -> dict[str, list[float]]:
    """Samples in ms by block key. A job leaves the rounds when its minimum has been calm for three of them."""
    repeats = {job.block.key: _warm_up(job, clock) for job in jobs}
    samples: dict[str, list[float]] = {job.block.key: [] for job in jobs}
    active = list(jobs)
    for _ in range(MOST_ROUNDS):
        generator.shuffle(active)
        for job in active:
            job.run()  # re-warm: the job before it left its own data in the caches
            job.restore()
            samples[job.block.key].append(1e3 * _sample(job, repeats[job.block.key], clock))
        active = [job for job in active if not is_calm(samples[job.block.key])]
        if not active:
            break
    return samples


def is_calm(samples: Sequence[float]) -> bool:
    """At least 8 rounds, and the last 3 did not lower the minimum by more than 1 %."""
    if len(samples) < LEAST_ROUNDS:
        return False
    return min(samples) > min(samples[:-CALM_ROUNDS]) * (1 - CALM_GAIN)


def _warm_up(job: Job, clock: Clock) -> int:
    """Two calls; how often the job is repeated in one sample so that it is not shorter than the clock is good for."""
    for _ in range(2):
        once = _timed(job.run, clock)
        job.restore()
    return max(1, min(50, round(SHORTEST_S / max(once, 1e-6))))


def _sample(job: Job, repeats: int, clock: Clock) -> float:
    total = 0.0
    for _ in range(repeats):
        total += _timed(job.run, clock)
        job.restore()
    return total / repeats


def _timed(call: Callable[[], object], clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start


def _timing(block: BlockSpec, samples: list[float], canary: float, now: str) -> BlockTiming:
    quartile = sorted(samples)[len(samples) // 4]
    return BlockTiming(asdict(block), tuple(samples), canary, now, noisy=quartile > NOISY * min(samples))
