"""Projectors and compressions: many small blocks, of which a spread sample is measured and the rest is fitted.

Every encoder, resolution, method and factor makes a connector of its own, so that a space has hundreds, each a few
percent of a request. They follow the model of `nas.latency.calibrated` over what they compute and move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from nas.cost_rows import Matrix
from nas.latency.blocks import BlockSpec, BlockTiming
from nas.latency.calibrated import LEAST_POINTS, left_out, solve
from nas.latency.spread import farthest
from nas.latency.work import block_work

MOST_MEASURED = 18


def sample(blocks: Sequence[BlockSpec], most: int = MOST_MEASURED) -> list[BlockSpec]:
    """At most `most` of the connectors, far apart in what they compute and move; all where there are few."""
    if len(blocks) <= most:
        return list(blocks)
    return [blocks[index] for index in farthest(np.log(_features(blocks) + 1e-12), most)]


def complete(blocks: Sequence[BlockSpec], timings: Mapping[str, BlockTiming]) -> dict[str, BlockTiming]:
    """Timings of the connectors that were not measured, fitted to those that were; empty where too few were."""
    known = [block for block in blocks if block.key in timings]
    missing = [block for block in blocks if block.key not in timings]
    if not missing or len(known) < LEAST_POINTS:
        return {}
    features, asked = _features(known), _features(missing)
    best = np.array([timings[block.key].value_ms for block in known])
    typical = np.array([timings[block.key].median_ms for block in known])
    error = float(np.quantile(np.abs(left_out(features, best) / best - 1), 0.9))
    source = timings[known[0].key]
    fitted: dict[str, BlockTiming] = {}
    lows, middles = asked @ solve(features, best), asked @ solve(features, typical)
    for block, low, middle in zip(missing, lows.tolist(), middles.tolist(), strict=True):
        fitted[block.key] = BlockTiming(
            asdict(block), (low, max(low, middle)), source.canary_ms, source.measured_at, noisy=False, modelled=error
        )
    return fitted


def _features(blocks: Sequence[BlockSpec]) -> Matrix:
    """(blocks, 5): one, kernels, FLOPs, weight bytes, activation bytes."""
    works = [block_work(block) for block in blocks]
    return np.array([[1.0, w.kernels, w.flops, w.weight_bytes, w.activation_bytes] for w in works])
