"""How surely a candidate is on the front, by Monte Carlo from the intervals of quality and latency.

The front asks for the order of candidates alone, and what a datasheet does not tell of a device is mostly wrong of all
its designs alike: COMMON of the variance of an estimate's logarithm. Vision, prefill and decode err apart, so that a
draw takes one error of each, which a design bears as far as its time is spent there, and one of the design's own.
All other errors are drawn apart. For blocks that were measured that is cautious. The Gaussian process of quality errs
alike on neighbours, but drawn so it foretold the fronts of trained models no better (bench/search/confidence).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from nas.constraints import LATENCY_METRICS
from nas.cost_rows import Matrix
from nas.pareto import front_mask
from nas.records import Latency, Quality

DRAWS = 400
Z80 = 1.2816  # half-width of an 80 % interval, in standard deviations
COMMON = 0.75
PHASES = 3  # that err apart: vision, prefill, decode
HOLDS = {"vision_ms": (1, 0, 0), "ttft_ms": (1, 1, 0), "tpot_ms": (0, 0, 1), "latency_ms": (1, 1, 1)}
ON_IT, PROBABLY = 0.9, 0.5


def confidence(gains: Matrix, errors: Matrix) -> Matrix:
    """(n): how often each of the rows is on the front of all of them.

    gains: (n, objectives) as `in_logs` has them; errors: (n, objectives, 1 + PHASES) as `errors` has them.
    """
    generator = np.random.default_rng(0)
    own, common = errors[..., 0], errors[..., 1:]
    counts = np.zeros(len(gains))
    for _ in range(DRAWS):
        alike = np.einsum("nof,of->no", common, generator.standard_normal(common.shape[1:]))
        counts += front_mask(gains + own * generator.standard_normal(own.shape) + alike)
    result: Matrix = counts / DRAWS
    return result


def in_logs(objectives: Sequence[str], gains: Sequence[Sequence[float]]) -> Matrix:
    """(n, objectives) to maximise, latencies as logarithms: in them an estimate errs evenly to both sides."""
    found: Matrix = np.array(gains, dtype=float).reshape(len(gains), len(objectives))
    for place, objective in enumerate(objectives):
        if objective.partition("@")[0] in LATENCY_METRICS:
            found[:, place] = -np.log(-found[:, place])
    return found


def errors(objectives: Sequence[str], quality: Quality, latency: Mapping[str, Latency]) -> list[list[float]]:
    """(objectives, 1 + PHASES): standard deviations by what is the design's own, and by what a phase has in common.

    From 80 % intervals; counts and closed forms have none.
    """
    found = []
    for objective in objectives:
        name, _, device = objective.partition("@")
        if name in LATENCY_METRICS:
            found.append(_of_latency(name, latency[device or next(iter(latency))]))
        else:
            own = (quality.high - quality.low) / (2 * Z80) if name == "quality" else 0.0
            found.append([own] + PHASES * [0.0])
    return found


def _of_latency(metric: str, one: Latency) -> list[float]:
    """Of its logarithm; the relative error of the whole answer is taken for its parts too."""
    deviation = math.asinh((one.high_ms - one.low_ms) / (2 * one.latency_ms)) / Z80
    if one.label != "estimated:datasheet":
        return [deviation] + PHASES * [0.0]
    phases = one.vision_ms + one.projector_ms, one.prefill_ms, (one.new_tokens - 1) * one.tpot_ms
    spent = [ms * holds for ms, holds in zip(phases, HOLDS[metric], strict=True)]
    common = math.sqrt(COMMON) * deviation / (math.hypot(*spent) or 1.0)
    return [math.sqrt(1 - COMMON) * deviation, *(common * ms for ms in spent)]


def in_words(share: float) -> str:
    """What a confidence says of a candidate on the front."""
    if share >= ON_IT:
        return "on the front"
    return "probably on the front" if share >= PROBABLY else "not told apart from neighbours"
