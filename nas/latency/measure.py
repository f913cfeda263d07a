"""Measures blocks by the protocol: canary, interleaved rounds in random order, stop rule, every sample kept."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from typing import get_args

import numpy as np
import torch

from hardware_profiles.profile import Protocol
from nas.latency.backends import Backend, backend, torch_threads
from nas.latency.blocks import NOISE, BlockKind, BlockSpec, BlockTiming, MeasurementContext, is_noisy
from nas.latency.jobs import Job
from nas.latency.plan import LONG_S, module_of, stranger_bytes
from nas.latency.request import PASSES
from nas.latency.work import block_work

Clock = Callable[[], float]
Keep = Callable[[dict[str, BlockTiming]], None]
LEAST_ROUNDS, MOST_ROUNDS, CALM_ROUNDS, CALM_GAIN = 8, 20, 3, 0.01
WARM_UPS = 2
DECODING_S, MOST_STEPS = 0.06, 50  # a request decodes for a stretch, so that a sample of a decode block is one too
CANARY_SIZE, CANARY_SAMPLES, CANARY_GLANCE = 512, 20, 5
GROUP = 24  # blocks held in memory at once; what is lost at most when a measurement is killed
GROUP_BYTES = 3 * 2**30  # of their weights and caches, unless a single block has more


def canary_ms(clock: Clock = time.perf_counter, samples: int = CANARY_SAMPLES) -> float:
    """Fastest of some 512^3 matrix products: says how fast the machine is just now."""
    matrix = torch.ones(CANARY_SIZE, CANARY_SIZE)
    return 1e3 * min(_timed(lambda: matrix @ matrix, clock) for _ in range(samples))


@dataclass
class Canary:
    """The canary of one session: asked as often as anything is timed, since minima are compared by its minimum.

    Asked at the ends of a group only, it differed by up to 15 % where the decoders beside it differed by 4 %.
    """

    clock: Clock
    fastest_ms: float = math.inf

    def ask(self, samples: int = CANARY_GLANCE) -> float:
        found = canary_ms(self.clock, samples)
        self.fastest_ms = min(self.fastest_ms, found)
        return found


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
    protocol: Protocol = Protocol(),  # noqa: B008 - frozen
    clock: Clock = time.perf_counter,
    seed: int = 0,
    passes: int = PASSES,
    keep: Keep,
) -> None:
    """Hands the timings of each finished group, by block key, to `keep`."""
    runtime = backend(context.runtime, context.dtype, context.threads)
    session = BlockPasses(runtime, Canary(clock), protocol, seed, last_level_cache_mib)
    with measuring(torch_threads(context.runtime, context.threads), seed):
        for _ in range(passes):
            session.measure(blocks, keep)


@contextmanager
def measuring(threads: int, seed: int) -> Iterator[None]:
    """Threads, gradients and random numbers as every measurement has them; the caller's own are kept."""
    with pinned(threads), torch.inference_mode(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class BlockPasses:
    """Blocks of one runtime, measured pass after pass in one session; the samples of all passes count."""

    def __init__(
        self, runtime: Backend, canary: Canary, protocol: Protocol, seed: int, last_level_cache_mib: float | None
    ) -> None:
        self.stranger = larger_than_caches(last_level_cache_mib)
        self.runtime, self.canary, self.protocol = runtime, canary, protocol
        self.generator = random.Random(seed)
        self.found: dict[str, BlockTiming] = {}

    def measure(self, blocks: Sequence[BlockSpec], keep: Keep) -> None:
        """One pass, group by group."""
        for group in groups_of(blocks, self.generator):
            jobs = [self.runtime.job(block) for block in group]
            sampling = Sampling(jobs, self.canary, self.protocol, self.stranger)
            run_rounds(sampling, self.generator)
            self.found |= {
                key: self.found[key].merged(timing, sampling.noise) if key in self.found else timing
                for key, timing in sampling.timings().items()
            }
            keep({block.key: self.found[block.key] for block in group})


def groups_of(blocks: Sequence[BlockSpec], generator: random.Random) -> list[list[BlockSpec]]:
    """At most GROUP each, and a mixture, as what runs in between is in a request.

    The first group is what was asked for first, so that something can be composed if the device then dies. Where all
    modules together have more than GROUP_BYTES, blocks of one module stay together, so that it is made once a pass.
    """
    rest = generator.sample(blocks[GROUP:], len(blocks[GROUP:]))
    count = math.ceil(len(rest) / GROUP)
    if _held_bytes(blocks) <= GROUP_BYTES:
        return [list(blocks[:GROUP]), *(rest[index::count] for index in range(count))]
    by_module: dict[tuple[object, ...], list[BlockSpec]] = {}
    for block in generator.sample(blocks, len(blocks)):
        by_module.setdefault(module_of(block), []).append(block)
    found: list[list[BlockSpec]] = [[]]
    for block in (block for alike in by_module.values() for block in alike):
        goes_on = bool(found[-1]) and module_of(found[-1][-1]) == module_of(block)
        if len(found[-1]) == GROUP or (found[-1] and not goes_on and _held_bytes([*found[-1], block]) > GROUP_BYTES):
            found.append([])
        found[-1].append(block)
    return found


def _held_bytes(blocks: Sequence[BlockSpec]) -> float:
    """What jobs hold in memory between their calls: modules, which several may share, and the caches of steps."""
    modules = {module_of(block): block_work(block).weight_bytes for block in blocks}
    caches = (block_work(block).activation_bytes for block in blocks if block.kind.endswith("decode"))
    return sum(modules.values()) + sum(caches)


def larger_than_caches(last_level_cache_mib: float | None) -> np.ndarray:
    """A stranger to all jobs: read before a piece of a request, so that few jobs do not keep their data there.

    By numpy on one thread: threads of torch would spin for a while after it, and hold up those of another runtime.
    """
    return np.ones(stranger_bytes(last_level_cache_mib) // 4, np.float32)


class Sampling:
    """Warm jobs, and the samples taken of them so far.

    A sample is one call, in the state that whatever ran before has left: as in a request, where other parts ran in
    between.
    """

    def __init__(self, jobs: Sequence[Job], canary: Canary, protocol: Protocol, stranger: np.ndarray) -> None:
        self.jobs, self.canary, self.protocol, self.stranger = jobs, canary, protocol, stranger
        self.noise = protocol.max_cv or NOISE
        warm_ups = WARM_UPS if protocol.warmup is None else protocol.warmup
        self.repeats = {job.block.key: _warm_up(job, canary.clock, warm_ups) for job in jobs}
        self.samples: dict[str, list[float]] = {job.block.key: [] for job in jobs}
        self.switches = dict.fromkeys(self.samples, 0)
        self.before_ms = canary.ask(CANARY_SAMPLES)

    def settle(self) -> None:
        """What a request and a piece of one find alike: no weights in the caches, threads awake."""
        self.stranger.sum()
        self.canary.ask()

    def take(self, chain: Sequence[Job]) -> None:
        """A sample of each."""
        for job in chain:
            key, taken = job.block.key, involuntary_switches()
            self.samples[key].append(1e3 * _sample(job, self.repeats[key], self.canary.clock))
            self.switches[key] += involuntary_switches() - taken

    def timings(self) -> dict[str, BlockTiming]:
        """By block key."""
        canary_ms = max(self.before_ms, self.canary.ask(CANARY_SAMPLES))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return {
            job.block.key: BlockTiming(
                asdict(job.block),
                tuple(self.samples[job.block.key]),
                canary_ms,
                now,
                noisy=is_noisy(self.samples[job.block.key], self.noise),
                estimator=self.protocol.estimator,
                quiet_ms=self.canary.fastest_ms,
                switches=self.switches[job.block.key],
            )
            for job in self.jobs
        }


def run_rounds(sampling: Sampling, generator: random.Random) -> None:
    """Every job once a round; it leaves the rounds when its minimum has been calm for three of them."""
    active, enough = list(sampling.jobs), is_calm if sampling.protocol.rounds else is_enough
    for _ in range(sampling.protocol.rounds or MOST_ROUNDS):
        for chain in chains(active, generator):
            sampling.settle()
            sampling.take(chain)
        active = [job for job in active if not enough(sampling.samples[job.block.key])]
        if not active:
            break


def chains(jobs: Sequence[Job], generator: random.Random) -> list[tuple[Job, ...]]:
    """Every job once, at random, as pieces of requests: one of a kind each, in the order of a request.

    So each runs as there: its own weights are out of the caches, its runtime and threads are awake.
    """
    by_kind = [[job for job in jobs if job.block.kind == kind] for kind in get_args(BlockKind)]
    for alike in by_kind:
        generator.shuffle(alike)
    return [tuple(job for job in chain if job) for chain in zip_longest(*by_kind)]


def involuntary_switches() -> int:
    """How often the system has taken the processor from this process; 0 where it does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def is_enough(samples_ms: Sequence[float]) -> bool:
    """Calm, or two samples that are so long that they are means themselves."""
    return is_calm(samples_ms) or (len(samples_ms) > 1 and sum(samples_ms) > 1e3 * LONG_S)


def is_calm(samples: Sequence[float]) -> bool:
    """At least 8 rounds, and the last 3 did not lower the minimum by more than 1 %."""
    if len(samples) < LEAST_ROUNDS:
        return False
    return min(samples) > min(samples[:-CALM_ROUNDS]) * (1 - CALM_GAIN)


def _warm_up(job: Job, clock: Clock, calls: int) -> int:
    """Some calls; then how many make a sample: one, or as many decode steps as make a stretch."""
    for _ in range(max(1, calls)):
        once = _sample(job, 1, clock)
    if not job.block.kind.endswith("decode"):
        return 1
    return max(2, min(MOST_STEPS, round(DECODING_S / max(once, 1e-6))))


def _sample(job: Job, repeats: int, clock: Clock) -> float:
    """Seconds of one call; of a stretch the mean, after a call that is not timed."""
    if repeats > 1:
        job.run()
        job.restore()
    total = 0.0
    for _ in range(repeats):
        total += _timed(job.run, clock)
        job.restore()
    return total / repeats


def _timed(call: Callable[[], object], clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start
