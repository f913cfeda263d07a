"""Whole requests, timed end to end in paired rounds: what the user of a finalist will wait for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from transformers import DynamicCache

from nas.latency.jobs import PHOTO_SIZE
from nas.model import MultimodalLM
from nas.model.processor import preprocess
from nas.records import Latency
from nas.workload import Workload

Clock = Callable[[], float]
PARTS = ("preprocess_ms", "vision_ms", "projector_ms", "prefill_ms", "tpot_ms")
ROUNDS = 12


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """A measured latency and the total of every round, in ms."""

    latency: Latency
    totals_ms: tuple[float, ...]


def measure_requests(
    models: Mapping[str, MultimodalLM],
    workload: Workload,
    *,
    threads: int,
    rounds: int = ROUNDS,
    clock: Clock = time.perf_counter,
    seed: int = 0,
) -> dict[str, EndToEnd]:
    """Every model once a round, in random order, so that drift of the machine hits all alike.

    Parts are minima over the rounds (the estimator of composed latencies); the interval reaches from their sum to the
    90th percentile of whole rounds.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    samples: dict[str, list[tuple[float, ...]]] = {key: [] for key in models}
    order, generator = list(models), random.Random(seed)
    try:
        with torch.inference_mode():
            for turn in range(rounds + 1):
                generator.shuffle(order)
                for key in order:
                    parts = time_request(models[key], workload, clock)
                    if turn:  # the first round is the warm-up
                        samples[key].append(parts)
    finally:
        torch.set_num_threads(before)
    return {key: _summary(values, workload) for key, values in samples.items()}


def time_request(model: MultimodalLM, workload: Workload, clock: Clock) -> tuple[float, ...]:
    """One request: preprocess, vision, projector, prefill, and the mean decode step, in ms."""
    from PIL import Image

    spec, lm = model.encoder_spec, model.language_spec
    batch = workload.batch
    photos = [Image.effect_noise(PHOTO_SIZE, 64).convert("RGB")] * (workload.images * batch)
    image_ids = [lm.image_token_id] * (model.visual_tokens * workload.images)
    text_ids = [lm.vocab - 1] * workload.prompt_tokens
    ids = torch.tensor([image_ids + text_ids] * batch)
    marks = [clock()]
    pixels = preprocess(photos, model.candidate.resolution, list(spec.mean), list(spec.std))
    marks.append(clock())
    tokens = model.vision_tokens(pixels)
    marks.append(clock())
    visual = model.project_tokens(tokens)
    marks.append(clock())
    past = DynamicCache(config=model.language_model.config)
    embedded = model.embed(ids, visual.reshape(batch, -1, lm.hidden))
    logits = model.language_model(inputs_embeds=embedded, past_key_values=past, use_cache=True, logits_to_keep=1).logits
    newest = logits[:, -1:].argmax(-1)
    marks.append(clock())
    steps = workload.new_tokens - 1
    for _ in range(steps):
        logits = model.language_model(input_ids=newest, past_key_values=past, use_cache=True).logits
        newest = logits[:, -1:].argmax(-1)
    marks.append(clock())
    spans = [1e3 * (after - start) for start, after in pairwise(marks)]
    return (*spans[:4], spans[4] / max(1, steps))


def _summary(values: list[tuple[float, ...]], workload: Workload) -> EndToEnd:
    best = {name: min(column) for name, column in zip(PARTS, zip(*values, strict=True), strict=True)}
    totals = sorted(sum(parts[:4]) + (workload.new_tokens - 1) * parts[4] for parts in values)
    low = sum(best.values()) + (workload.new_tokens - 2) * best["tpot_ms"]
    high = max(low, totals[int(0.9 * (len(totals) - 1))])
    return EndToEnd(
        Latency(**best, new_tokens=workload.new_tokens, label="measured", low_ms=low, high_ms=high), tuple(totals)
    )
