"""Whole requests, timed end to end in paired rounds: what the user of a finalist will wait for."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hardware_profiles.profile import LowEnd, Protocol
from nas.latency.amounts import amounts
from nas.latency.backends import Stages, backend, torch_threads
from nas.latency.blocks import BlockSpec, MeasurementContext, undisturbed
from nas.latency.energy import EnergyMeter
from nas.latency.jobs import Job, photo
from nas.latency.measure import LEAST_ROUNDS, Canary, Keep, Sampling, chains, larger_than_caches, measuring
from nas.latency.memory import PeakMemory, measure_memory
from nas.latency.request import ROUNDS, EndToEnd
from nas.latency.terms import check_runs
from nas.model import build
from nas.model.processor import tiled_pixels
from nas.model.sound import log_mel, noise
from nas.records import Latency, request_ms
from nas.workload import Workload
from search_spaces import Candidate
from search_spaces.catalogue import encoder, language_model

Clock = Callable[[], float]
SAMPLES = 2  # of a block among the requests of a round, at least
PARTS = ("preprocess_ms", "vision_ms", "projector_ms", "prefill_ms", "tpot_ms")


def measure_requests(
    candidates: Mapping[str, Candidate],
    workload: Workload,
    context: MeasurementContext,
    *,
    blocks: Sequence[BlockSpec] = (),
    keep: Keep = lambda timings: None,
    last_level_cache_mib: float | None = None,
    protocol: Protocol = Protocol(),  # noqa: B008 - frozen
    rounds: int | None = None,
    sustained_s: float = 0,
    clock: Clock = time.perf_counter,
    seed: int = 0,
) -> dict[str, EndToEnd]:
    """Every candidate once a round, in random order, so that drift of the machine hits all alike.

    Weights are random: speed does not depend on their values. Parts are `undisturbed` over the rounds, as blocks are;
    the interval reaches from their sum to the 90th percentile of whole rounds. `blocks` are
    measured among the requests, each SAMPLES times a round, so that both have seen the same seconds of the machine.
    """
    for candidate in candidates.values():
        check_runs(candidate, workload, context.runtime)
    runtime = backend(context.runtime, context.dtype, context.threads)
    requests: dict[str, Request] = {}
    memory: dict[str, PeakMemory | None] = {}
    canary = Canary(clock)
    with measuring(torch_threads(context.runtime, context.threads), seed):
        for key, candidate in candidates.items():

            def load(candidate: Candidate = candidate) -> Request:
                return Request(candidate, workload, runtime.load(build(candidate, weights="random", seed=seed)))

            requests[key], memory[key] = measure_memory(
                load, lambda request: request.run(clock), lambda request: request.stages.kv_bytes()
            )
        turns = rounds or protocol.rounds or ROUNDS
        meter = EnergyMeter()
        # Requests alone keep what they had in the caches, as on the device: nothing is read before them.
        stranger = larger_than_caches(last_level_cache_mib) if blocks else np.empty(0, np.float32)
        among = Sampling([runtime.job(block) for block in blocks], canary, protocol, stranger)
        samples = _rounds(requests, among, turns, random.Random(seed), meter)
        if blocks:
            keep(among.timings())
        sustained = {key: _sustained(request, sustained_s, clock) for key, request in requests.items()}
    return {
        key: EndToEnd(
            _summary(values, workload, protocol.estimator),
            tuple(_totals(values, workload)),
            canary.fastest_ms,
            memory[key],
            sustained[key],
            meter.mean_j(key),
        )
        for key, values in samples.items()
    }


class Request:
    """One candidate in a runtime, and the inputs of one request."""

    def __init__(self, candidate: Candidate, workload: Workload, stages: Stages) -> None:
        lm, found = language_model(candidate.lm), amounts(candidate, workload)
        places = found.prompt - workload.prompt_tokens
        self.stages, self.hidden = stages, lm.hidden
        self.batch, self.steps, self.past = workload.batch, workload.new_tokens - 1, found.past
        self.frames = workload.frames
        self.prepare = _prepare(candidate, workload, found.photos)
        self.ids = torch.tensor([[lm.image_token_id] * places + [lm.vocab - 1] * workload.prompt_tokens] * self.batch)

    def run(self, clock: Clock) -> tuple[float, ...]:
        """Preprocess, vision, projector, prefill, and the mean decode step, in ms."""
        self.stages.begin(self.batch, self.past)
        marks = [clock()]

        def mark(found: Any) -> Any:
            marks.append(clock())
            return found

        pixels: Tensor = mark(self.prepare())
        if self.frames > 1 and pixels.ndim == 4:  # a tile is a picture of its own, and its frames are not merged
            pixels = pixels.unflatten(0, (-1, self.frames))  # type: ignore[no-untyped-call]
        tokens = mark(self.stages.vision(pixels))
        visual: Tensor = mark(self.stages.projector(tokens))
        newest: Tensor = mark(self.stages.prefill(self.ids, visual.reshape(self.batch, -1, self.hidden)))
        for _ in range(self.steps):
            newest = self.stages.step(newest)
        mark(newest)
        spans = [1e3 * (after - start) for start, after in pairwise(marks)]
        return (*spans[:4], spans[4] / max(1, self.steps))


def _prepare(candidate: Candidate, workload: Workload, photos: int) -> Callable[[], Tensor]:
    """What makes pixels of every photo, or spectrograms of every window of sound."""
    spec, resolution = encoder(candidate.encoder), candidate.resolution
    if spec.mels:
        clips = [noise(workload.seconds)] * (workload.images * workload.batch)
        return lambda: log_mel(clips, resolution, spec.mels)
    pictures, mean, std = [photo()] * (photos * workload.batch), list(spec.mean), list(spec.std)
    return lambda: tiled_pixels(pictures, resolution, mean, std, candidate.tiling, candidate.tiles)


def _rounds(
    requests: Mapping[str, Request],
    among: Sampling,
    rounds: int,
    generator: random.Random,
    meter: EnergyMeter,
) -> dict[str, list[tuple[float, ...]]]:
    """Parts of every round of requests; the jobs of `among` are sampled between them, all in random order."""
    samples: dict[str, list[tuple[float, ...]]] = {key: [] for key in requests}
    clock = among.canary.clock
    for request in requests.values():
        request.run(clock)  # warms it up
    samples_each = max(SAMPLES, math.ceil(LEAST_ROUNDS / rounds))
    for _ in range(rounds):
        order: list[str | tuple[Job, ...]] = [*requests]
        order += (chain for _ in range(samples_each) for chain in chains(among.jobs, generator))
        generator.shuffle(order)
        for one in order:
            among.settle()
            if not isinstance(one, str):
                among.take(one)
                continue
            with meter.around(one):
                samples[one].append(requests[one].run(clock))
    return samples


def _sustained(request: Request, seconds: float, clock: Clock) -> float | None:
    """Median total of the second half of `seconds` of requests back to back: what remains when the device is warm."""
    if seconds <= 0:
        return None
    start, totals = clock(), []
    while clock() - start < seconds:
        parts = request.run(clock)
        totals.append(sum(parts[:4]) + request.steps * parts[4])
    late = sorted(totals[len(totals) // 2 :])
    return late[len(late) // 2]


def _summary(values: list[tuple[float, ...]], workload: Workload, estimator: LowEnd) -> Latency:
    columns = zip(*values, strict=True)
    best = {name: undisturbed(column, estimator) for name, column in zip(PARTS, columns, strict=True)}
    totals = _totals(values, workload)
    low = request_ms(best, workload.new_tokens)
    high = max(low, totals[int(0.9 * (len(totals) - 1))])
    return Latency(
        **best, new_tokens=workload.new_tokens, label="measured", low_ms=low, high_ms=high, extrapolated=False
    )


def _totals(values: list[tuple[float, ...]], workload: Workload) -> list[float]:
    """Of whole rounds, in ms; the fastest first."""
    return sorted(sum(parts[:4]) + (workload.new_tokens - 1) * parts[4] for parts in values)
