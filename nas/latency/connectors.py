"""Projectors and compressions: many small blocks, of which a spread sample is measured and the rest is fitted.

Every encoder, resolution, method and factor makes a connector of its own, so that a space has hundreds, each a few
percent of a request. A connector's time is close to linear in what it computes and moves:

    t = c0 + c1 kernels + c2 FLOPs + c3 weight bytes + c4 activation bytes,  all c >= 0

fitted with relative weights. The error to expect is that of the sample, each left out in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from nas.latency.blocks import BlockSpec, BlockTiming
from nas.latency.work import block_work

MOST_MEASURED = 20

Matrix = NDArray[np.float64]


def sample(blocks: Sequence[BlockSpec], most: int = MOST_MEASURED) -> list[BlockSpec]:
    """At most `most` of the connectors, far apart in what they compute and move; all where there are few.

    Greedy: the largest first, then always the one that is farthest from those chosen.
    """
    if len(blocks) <= most:
        return list(blocks)
    features = np.log1p(_features(blocks))
    spread = features.std(axis=0)
    features = features / np.where(spread > 0, spread, 1.0)
    chosen = [int(features.sum(axis=1).argmax())]
    distance = np.linalg.norm(features - features[chosen[0]], axis=1)
    while len(chosen) < most:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(features - features[chosen[-1]], axis=1))
    return [blocks[index] for index in sorted(chosen)]


def complete(blocks: Sequence[BlockSpec], timings: Mapping[str, BlockTiming]) -> dict[str, BlockTiming]:
    """Timings of the connectors that were not measured, fitted to those that were; empty where none was."""
    known = [block for block in blocks if block.key in timings]
    missing = [block for block in blocks if block.key not in timings]
    if not missing or not known:
        return {}
    features, asked = _features(known), _features(missing)
    best = np.array([timings[block.key].value_ms for block in known])
    typical = np.array([timings[block.key].median_ms for block in known])
    error = left_out_error(features, best)
    source = timings[known[0].key]
    fitted: dict[str, BlockTiming] = {}
    for block, low, middle in zip(
        missing, _predict(features, best, asked), _predict(features, typical, asked), strict=True
    ):
        fitted[block.key] = BlockTiming(
            asdict(block), (float(low), float(max(low, middle))), source.canary_ms, source.measured_at,
            noisy=False, modelled=error,
        )  # fmt: skip
    return fitted


def left_out_error(features: Matrix, times_ms: Matrix) -> float:
    """90th percentile of the relative error when each connector is left out of the fit in turn."""
    if len(times_ms) < 3:
        return 1.0
    errors = []
    for index, truth in enumerate(times_ms):
        rest = np.arange(len(times_ms)) != index
        predicted = _predict(features[rest], times_ms[rest], features[index : index + 1])[0]
        errors.append(abs(predicted / truth - 1))
    return float(np.quantile(errors, 0.9))


def _features(blocks: Sequence[BlockSpec]) -> Matrix:
    """(blocks, 5): one, kernels, FLOPs, weight bytes, activation bytes."""
    works = [block_work(block) for block in blocks]
    return np.array([[1.0, w.kernels, w.flops, w.weight_bytes, w.activation_bytes] for w in works])


def _predict(features: Matrix, times_ms: Matrix, asked: Matrix) -> Matrix:
    scale = features.max(axis=0)
    coefficients, _ = nnls(features / scale / times_ms[:, None], np.ones(len(times_ms)))
    predicted: Matrix = (asked / scale) @ coefficients
    return predicted
