"""Whole requests, timed end to end in paired rounds: what the user of a finalist will wait for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from nas.latency.backends import Stages, backend
from nas.latency.blocks import MeasurementContext
from nas.latency.jobs import photo
from nas.latency.measure import canary_ms, pinned
from nas.latency.memory import PeakMemory, measure_memory
from nas.latency.request import ROUNDS, EndToEnd
from nas.model import build
from nas.model.processor import preprocess
from nas.records import Latency, request_ms
from nas.workload import Workload
from search_spaces import Candidate
from search_spaces.catalogue import encoder, language_model

Clock = Callable[[], float]
PARTS = ("preprocess_ms", "vision_ms", "projector_ms", "prefill_ms", "tpot_ms")


def measure_requests(
    candidates: Mapping[str, Candidate],
    workload: Workload,
    context: MeasurementContext,
    *,
    last_level_cache_mib: float | None = None,
    rounds: int = ROUNDS,
    sustained_s: float = 0,
    clock: Clock = time.perf_counter,
    seed: int = 0,
) -> dict[str, EndToEnd]:
    """Every candidate once a round, in random order, so that drift of the machine hits all alike.

    Weights are random: speed does not depend on their values. Parts are minima over the rounds (the estimator of
    composed latencies); the interval reaches from their sum to the 90th percentile of whole rounds.
    """
    runtime = backend(
        context.runtime, context.dtype, last_level_cache_mib=last_level_cache_mib, threads=context.threads
    )
    requests: dict[str, Request] = {}
    memory: dict[str, PeakMemory | None] = {}
    with pinned(context.threads), torch.inference_mode():
        for key, candidate in candidates.items():

            def load(candidate: Candidate = candidate) -> Request:
                return Request(candidate, workload, runtime.load(build(candidate, weights="random", seed=seed)))

            requests[key], memory[key] = measure_memory(load, lambda request: request.run(clock))
        samples, canary = _rounds(requests, rounds, clock, random.Random(seed))
        sustained = {key: _sustained(request, sustained_s, clock) for key, request in requests.items()}
    return {key: _summary(values, workload, canary, memory[key], sustained[key]) for key, values in samples.items()}


class Request:
    """One candidate in a runtime, and the inputs of one request."""

    def __init__(self, candidate: Candidate, workload: Workload, stages: Stages) -> None:
        spec, lm = encoder(candidate.encoder), language_model(candidate.lm)
        images = spec.tokens(candidate.resolution, candidate.compression_factor) * workload.images
        self.stages, self.resolution, self.hidden = stages, candidate.resolution, lm.hidden
        self.mean, self.std = list(spec.mean), list(spec.std)
        self.batch, self.steps = workload.batch, workload.new_tokens - 1
        self.photos = [photo()] * (workload.images * workload.batch)
        self.ids = torch.tensor([[lm.image_token_id] * images + [lm.vocab - 1] * workload.prompt_tokens] * self.batch)

    def run(self, clock: Clock) -> tuple[float, ...]:
        """Preprocess, vision, projector, prefill, and the mean decode step, in ms."""
        marks = [clock()]

        def mark(found: Any) -> Any:
            marks.append(clock())
            return found

        pixels: Tensor = mark(preprocess(self.photos, self.resolution, self.mean, self.std))
        tokens = mark(self.stages.vision(pixels))
        visual: Tensor = mark(self.stages.projector(tokens))
        newest: Tensor = mark(self.stages.prefill(self.ids, visual.reshape(self.batch, -1, self.hidden)))
        for _ in range(self.steps):
            newest = self.stages.step(newest)
        mark(newest)
        spans = [1e3 * (after - start) for start, after in pairwise(marks)]
        return (*spans[:4], spans[4] / max(1, self.steps))


def _rounds(
    requests: Mapping[str, Request], rounds: int, clock: Clock, generator: random.Random
) -> tuple[dict[str, list[tuple[float, ...]]], float]:
    """Parts of every round, and the canary of the calmer end: parts are minima."""
    samples: dict[str, list[tuple[float, ...]]] = {key: [] for key in requests}
    order = list(requests)
    canary = canary_ms(clock)
    for turn in range(rounds + 1):
        generator.shuffle(order)
        for key in order:
            parts = requests[key].run(clock)
            if turn:  # the first round is the warm-up
                samples[key].append(parts)
    return samples, min(canary, canary_ms(clock))


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


def _summary(
    values: list[tuple[float, ...]],
    workload: Workload,
    canary: float,
    memory: PeakMemory | None,
    sustained: float | None,
) -> EndToEnd:
    best = {name: min(column) for name, column in zip(PARTS, zip(*values, strict=True), strict=True)}
    steps = workload.new_tokens - 1
    totals = sorted(sum(parts[:4]) + steps * parts[4] for parts in values)
    low = request_ms(best, workload.new_tokens)
    high = max(low, totals[int(0.9 * (len(totals) - 1))])
    latency = Latency(**best, new_tokens=workload.new_tokens, label="measured", low_ms=low, high_ms=high)
    return EndToEnd(latency, tuple(totals), canary, memory, sustained)
