"""Measures blocks by the protocol: canary, interleaved rounds in random order, stop rule, every sample kept."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import torch

from nas.latency.backends import Backend, backend
from nas.latency.blocks import BlockSpec, BlockTiming, MeasurementContext
from nas.latency.jobs import Job, nothing

Clock = Callable[[], float]
LEAST_ROUNDS, MOST_ROUNDS, CALM_ROUNDS, CALM_GAIN = 8, 20, 3, 0.01
SHORTEST_S = 0.01  # shorter jobs are repeated inside one sample
DECODING_S = 0.06  # a request decodes for a stretch, so that a sample of a decode block is one too
MOST_REPEATS, MOST_COLD_REPEATS = 50, 8  # a cold job empties the cache before each of its repeats
NOISY = 1.08
CANARY_SIZE, CANARY_SAMPLES = 512, 20
PASSES = 3  # a machine is slow for seconds at a time: every block is measured again when all others have been
GROUP = 24  # blocks held in memory at once; what is lost at most when a measurement is killed


def canary_ms(clock: Clock = time.perf_counter) -> float:
    """Fastest of some 512^3 matrix products: says how fast the machine is just now."""
    matrix = torch.ones(CANARY_SIZE, CANARY_SIZE)
    return 1e3 * min(_timed(lambda: matrix @ matrix, clock) for _ in range(CANARY_SAMPLES))


def canary_at(threads: int) -> float:
    """The canary with as many threads as the blocks are measured with; the caller's number of threads is kept."""
    with pinned(threads):
        return canary_ms()


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """torch computes with so many threads inside, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure_blocks(
    blocks: Sequence[BlockSpec],
    context: MeasurementContext,
    *,
    last_level_cache_mib: float | None = None,
    clock: Clock = time.perf_counter,
    seed: int = 0,
    keep: Callable[[dict[str, BlockTiming]], None],
) -> None:
    """Hands the timings of each finished group, by block key, to `keep`."""
    runtime = backend(
        context.runtime, context.dtype, last_level_cache_mib=last_level_cache_mib, threads=context.threads
    )
    found: dict[str, BlockTiming] = {}
    with pinned(context.threads), torch.inference_mode(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for turn in range(PASSES):
            for start in range(0, len(blocks), GROUP):
                group = blocks[start : start + GROUP]
                fresh = _measure_group(group, runtime, clock, random.Random(seed + turn + start))
                found |= {key: _merged(found[key], new) if turn else new for key, new in fresh.items()}
                keep({key: found[key] for key in fresh})


def _merged(first: BlockTiming, second: BlockTiming) -> BlockTiming:
    """Samples of the passes so far and of the next; of each canary the calmer one."""
    return replace(
        _timing_of(first.block, [*first.samples_ms, *second.samples_ms], second.measured_at),
        canary_ms=min(first.canary_ms, second.canary_ms),
        quiet_ms=min(first.calm_canary_ms, second.calm_canary_ms),
        switches=first.switches + second.switches,
    )


def _measure_group(
    blocks: Sequence[BlockSpec], runtime: Backend, clock: Clock, generator: random.Random
) -> dict[str, BlockTiming]:
    jobs = [runtime.job(block) for block in blocks]
    before = canary_ms(clock)
    samples, switches = run_rounds(jobs, clock, generator)
    after = canary_ms(clock)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        job.block.key: replace(
            _timing_of(asdict(job.block), samples[job.block.key], now),
            canary_ms=max(before, after),
            quiet_ms=min(before, after),
            switches=switches[job.block.key],
        )
        for job in jobs
    }


def run_rounds(
    jobs: Sequence[Job], clock: Clock, generator: random.Random
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """(samples in ms, involuntary context switches) by block key.

    A job leaves the rounds when its minimum has been calm for three of them.
    """
    repeats = {job.block.key: _warm_up(job, clock) for job in jobs}
    samples: dict[str, list[float]] = {job.block.key: [] for job in jobs}
    switches = dict.fromkeys(samples, 0)
    active = list(jobs)
    for _ in range(MOST_ROUNDS):
        generator.shuffle(active)
        for job in active:
            job.run()  # re-warm: the job before it left its own data in the caches
            job.restore()
            taken = involuntary_switches()
            samples[job.block.key].append(1e3 * _sample(job, repeats[job.block.key], clock))
            switches[job.block.key] += involuntary_switches() - taken
        active = [job for job in active if not is_calm(samples[job.block.key])]
        if not active:
            break
    return samples, switches


def involuntary_switches() -> int:
    """How often the system has taken the processor from this process; 0 where it does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def is_calm(samples: Sequence[float]) -> bool:
    """At least 8 rounds, and the last 3 did not lower the minimum by more than 1 %."""
    if len(samples) < LEAST_ROUNDS:
        return False
    return min(samples) > min(samples[:-CALM_ROUNDS]) * (1 - CALM_GAIN)


def _warm_up(job: Job, clock: Clock) -> int:
    """Two calls; how often the job is repeated in one sample so that it is not shorter than the clock is good for."""
    for _ in range(2):
        once = _sample(job, 1, clock)
    most = MOST_REPEATS if job.before is nothing else MOST_COLD_REPEATS
    shortest_s = DECODING_S if job.block.kind.endswith("decode") else SHORTEST_S
    return max(1, min(most, round(shortest_s / max(once, 1e-6))))


def _sample(job: Job, repeats: int, clock: Clock) -> float:
    """Mean seconds of some repeats; what sets the state up and back is not timed."""
    total = 0.0
    for _ in range(repeats):
        job.before()
        total += _timed(job.run, clock)
        job.restore()
    return total / repeats


def _timed(call: Callable[[], object], clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start


def _timing_of(block: dict[str, Any], samples: list[float], now: str) -> BlockTiming:
    quartile = sorted(samples)[len(samples) // 4]
    return BlockTiming(block, tuple(samples), 0.0, now, noisy=quartile > NOISY * min(samples))
