"""Composed against measured: how far composed latencies can be trusted, on candidates spread over a space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from nas.cost import cost
from nas.latency import calibrated
from nas.latency.blocks import BlockSpec
from nas.latency.calibrated import CalibratedModel
from nas.latency.compose import compose
from nas.latency.device import Device, Timings
from nas.latency.estimate import calibration_file
from nas.latency.request import EndToEnd
from nas.latency.spread import apart_in_each
from nas.latency.terms import needed
from nas.latency.work import FEATURES, features
from nas.workload import Workload
from search_spaces import Candidate

METRICS = ("ttft_ms", "tpot_ms", "latency_ms")
CACHED = ", cached"  # behind a metric: composed of the samples of all sessions, not only of those among the requests
MEMORY = "memory_gib"  # in closed form against the resident peak


@dataclass(frozen=True, slots=True)
class CompositionError:
    """Of one metric over the checked candidates; relative, composed (memory: closed form) / measured - 1."""

    mean: float
    worst: float
    bias: float
    spearman: float


@dataclass(frozen=True, slots=True)
class CompositionCheck:
    """What `nas devices calibrate` publishes."""

    device: str
    runtime: str
    version: str
    dtype: str
    candidates: int
    errors: dict[str, CompositionError]
    rows: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def from_points(device: Device, blocks: Sequence[BlockSpec], count: int) -> CalibratedModel:
    """Measures `count` blocks far apart in what they compute and move, and fits the rest to them."""
    table = [features(block) for block in blocks]
    chosen = calibrated.spread(table, count)
    timings = device.exact([blocks[index] for index in chosen])
    times = [timings[blocks[index].key].value_ms for index in chosen]
    return calibrated.fit(FEATURES, [table[index] for index in chosen], times)


def keep(model: CalibratedModel, device: str) -> Path:
    """Writes the coefficients where estimates look for them."""
    file = calibration_file(device)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(model.to_json(), encoding="utf-8")
    return file


def spread(candidates: Sequence[Candidate], workload: Workload, timings: Timings, count: int) -> list[Candidate]:
    """Candidates far apart in each of the composed metrics, of many encoders and connectors; the fastest first."""
    found = [compose(candidate, workload, timings, timings.context.runtime) for candidate in candidates]
    points = np.log([[getattr(latency, metric) for metric in METRICS] for latency in found])
    kinds = [[one.encoder, str(one.resolution), one.projector, one.compression] for one in candidates]
    return [candidates[index] for index in apart_in_each(points, kinds, count)]


def check_composition(
    device: Device, candidates: Sequence[Candidate], workload: Workload, timings: Timings, count: int = 12
) -> CompositionCheck:
    """Measures `count` candidates end to end and compares; measured times are brought to the blocks' canary.

    Composition is judged by blocks that are timed once more among the requests: two times of the same machine minutes
    apart differ by more than it errs. What a search will read, the samples of all sessions, is compared beside
    (`cached`).
    """
    chosen = spread(candidates, workload, timings, count)
    asked = {block.key: block for one in chosen for block in needed(one, workload, device.runtime)}
    again = [block for key, block in asked.items() if timings[key].modelled is None]
    measured, between = device.requests_and_blocks({one.key: one for one in chosen}, workload, again)
    every = [BlockSpec(**timing.block) for timing in timings.values()]
    paired, cached = device.known(every, between, fit_every=True), device.known(every, fit_every=True)
    rows = [_row(candidate, workload, paired, cached, measured[candidate.key]) for candidate in chosen]
    errors = {
        metric if source == "composed" else f"{metric}{CACHED}": _error(
            [row[source][metric] for row in rows], [row["measured"][metric] for row in rows]
        )
        for source in ("composed", "cached")
        for metric in METRICS
    }
    if all(row["memory"] is not None for row in rows):
        memory = [row["memory"] for row in rows]
        errors[MEMORY] = _error([one["closed_form_gib"] for one in memory], [one["peak_gib"] for one in memory])
    context = device.context
    return CompositionCheck(context.device, context.runtime, context.version, context.dtype, len(rows), errors, rows)


def _error(predicted: Sequence[float], measured: Sequence[float]) -> CompositionError:
    error = np.array(predicted) / np.array(measured) - 1
    rank = float(spearmanr(predicted, measured)[0])
    return CompositionError(float(np.abs(error).mean()), float(np.abs(error).max()), float(error.mean()), rank)


def _row(candidate: Candidate, workload: Workload, paired: Timings, cached: Timings, found: EndToEnd) -> dict[str, Any]:
    quiet, latency = paired.canary_ms / found.canary_ms, found.latency
    runtime = paired.context.runtime
    composed = compose(candidate, workload, paired, runtime)
    scaled = replace(
        latency, **{name: quiet * getattr(latency, name) for name in
                    ("preprocess_ms", "vision_ms", "projector_ms", "prefill_ms", "tpot_ms", "low_ms", "high_ms")},
    )  # fmt: skip
    return {
        "candidate": str(candidate),
        "key": candidate.key,
        "scale": quiet,
        "composed": composed.to_dict(),
        "cached": compose(candidate, workload, cached, runtime).to_dict(),
        "measured": scaled.to_dict(),
        "inside_interval": composed.low_ms <= scaled.latency_ms <= composed.high_ms,
        "memory": None
        if found.memory is None
        else {**found.memory.in_gib(), "closed_form_gib": cost(candidate, workload).memory_gib},
    }
