"""Composed against measured: how far composed latencies can be trusted, on candidates spread over a space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from nas.cost import cost
from nas.errors import NotMeasuredError
from nas.latency import calibrated
from nas.latency.blocks import BlockSpec
from nas.latency.calibrated import CalibratedModel
from nas.latency.compose import compose
from nas.latency.device import Device, Timings
from nas.latency.estimate import calibration_file
from nas.latency.request import ROUNDS, EndToEnd
from nas.latency.spread import apart_in_each
from nas.latency.terms import needed
from nas.latency.work import FEATURES, features
from nas.records import Latency
from nas.workload import Workload
from search_spaces import Candidate

METRICS = ("ttft_ms", "tpot_ms", "latency_ms")
CACHED = ", cached"  # behind a metric: composed of the samples of all sessions, not only of those among the requests
FEWEST_ROUNDS, BLOCKS_TOO = 3, 2  # rounds where requests take long; their blocks take as long as they do
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
    rounds: int
    errors: dict[str, CompositionError]
    rows: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def inside(self) -> int:
        """How many candidates were measured within the interval that a search shows."""
        return sum(row["inside_interval"] for row in self.rows)


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


def answering(
    candidates: Sequence[Candidate], workload: Workload, timings: Timings, most_s: float
) -> list[tuple[Candidate, Latency]]:
    """Candidates whose composed request takes at most so long; those that cannot be composed are left out.

    Raises: NotMeasuredError where there is none.
    """
    found = []
    for candidate in candidates:
        with suppress(NotMeasuredError):
            latency = compose(candidate, workload, timings, timings.context.runtime)
            if latency.latency_ms <= 1e3 * most_s:
                found.append((candidate, latency))
    if not found:
        raise NotMeasuredError(
            f"no design answers within {most_s:.2g} s, so that none is checked; give more time with "
            f"--set measuring_s=SECONDS, or leave the check out with --check 0"
        )
    return found


def spread(composed: Sequence[tuple[Candidate, Latency]], count: int) -> list[tuple[Candidate, Latency]]:
    """Candidates far apart in each of the metrics, of many encoders and connectors; the fastest first."""
    points = np.log([[getattr(latency, metric) for metric in METRICS] for _, latency in composed])
    kinds = [[one.encoder, str(one.resolution), one.projector, one.compression] for one, _ in composed]
    return [composed[index] for index in apart_in_each(points, kinds, count)]


def check_composition(
    device: Device,
    candidates: Sequence[Candidate],
    workload: Workload,
    timings: Timings,
    count: int = 12,
    budget_s: float | None = None,
) -> CompositionCheck:
    """Measures `count` candidates end to end and compares; measured times are brought to the blocks' canary.

    Within about `budget_s`: in fewer rounds where requests take long, and without the designs that take too long.

    Composition is judged by blocks that are timed once more among the requests: two times of the same machine minutes
    apart differ by more than it errs. What a search will read, the samples of all sessions, is compared beside
    (`cached`).
    """
    allowed_s = math.inf if budget_s is None else budget_s / BLOCKS_TOO
    chosen = spread(answering(candidates, workload, timings, allowed_s / (FEWEST_ROUNDS + 1) / count), count)
    request_s = sum(latency.latency_ms for _, latency in chosen) / 1e3
    rounds = int(min(ROUNDS, max(FEWEST_ROUNDS, allowed_s // request_s - 1)))
    asked = {block.key: block for one, _ in chosen for block in needed(one, workload, device.runtime)}
    again = [block for key, block in asked.items() if timings[key].modelled is None]
    measured, between = device.requests_and_blocks({one.key: one for one, _ in chosen}, workload, again, rounds)
    every = [BlockSpec(**timing.block) for timing in timings.values()]
    paired, cached = device.known(every, between, fit_every=True), device.known(every, fit_every=True)
    rows = [_row(candidate, workload, paired, cached, measured[candidate.key]) for candidate, _ in chosen]
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
    return CompositionCheck(
        context.device, context.runtime, context.version, context.dtype, len(rows), rounds, errors, rows
    )


def _error(predicted: Sequence[float], measured: Sequence[float]) -> CompositionError:
    error = np.array(predicted) / np.array(measured) - 1
    rank = float(spearmanr(predicted, measured)[0])
    return CompositionError(float(np.abs(error).mean()), float(np.abs(error).max()), float(error.mean()), rank)


def _row(candidate: Candidate, workload: Workload, paired: Timings, cached: Timings, found: EndToEnd) -> dict[str, Any]:
    quiet, latency = paired.canary_ms / found.canary_ms, found.latency
    runtime = paired.context.runtime
    composed, shown = (compose(candidate, workload, timings, runtime) for timings in (paired, cached))
    scaled = replace(
        latency, **{name: quiet * getattr(latency, name) for name in
                    ("preprocess_ms", "vision_ms", "projector_ms", "prefill_ms", "tpot_ms", "low_ms", "high_ms")},
    )  # fmt: skip
    return {
        "candidate": str(candidate),
        "key": candidate.key,
        "scale": quiet,
        "composed": composed.to_dict(),
        "cached": shown.to_dict(),
        "measured": scaled.to_dict(),
        "inside_interval": shown.low_ms <= scaled.latency_ms <= shown.high_ms,
        "memory": None
        if found.memory is None
        else {**found.memory.in_gib(), "closed_form_gib": cost(candidate, workload).memory_gib},
    }
