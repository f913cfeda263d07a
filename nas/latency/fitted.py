"""Blocks that are not measured but fitted to others of their kind, by the model of `nas.latency.calibrated`.

Projectors and compressions: every encoder, resolution, method and factor makes a connector of its own, so that a space
has hundreds, each a few percent of a request. And any block of a space whose blocks would take hours
(`nas.latency.plan`): there, left out, the blocks of `edge` came out within 11 % (prefill) and 6 % (decode step) in the
median. To correct the fit by a component's own blocks made that no better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from nas.cost_rows import Matrix
from nas.latency.blocks import BlockSpec, BlockTiming
from nas.latency.calibrated import LEAST_POINTS, left_out, solve
from nas.latency.spread import farthest
from nas.latency.work import block_work
from search_spaces.catalogue import encoder

MOST_MEASURED = 18
SMALL = frozenset({"preprocess", "projector", "prune", "join", "fastv"})  # a few percent of a request each
USUAL = 0.9  # of measured blocks, each left out, have at most the error that a fitted one is said to have


def sample(blocks: Sequence[BlockSpec], most: int = MOST_MEASURED) -> list[BlockSpec]:
    """At most `most` of the blocks, far apart in what they compute and move; all where there are few."""
    if len(blocks) <= most:
        return list(blocks)
    return [blocks[index] for index in farthest(np.log(_features(blocks) + 1e-12), most)]


def component(block: BlockSpec) -> str:
    """What a block is of: its encoder, or its language model with what changes that; nothing for the small ones."""
    if block.kind in SMALL:
        return ""
    return block.encoder or f"{block.lm} {block.axes}"


def family(block: BlockSpec) -> str:
    """Blocks that one fit is over: a kind; of encoders, those that convolve or those that do not."""
    return f"{block.kind} {encoder(block.encoder).family == 'cnn'}" if block.kind == "vision" else block.kind


def complete(blocks: Sequence[BlockSpec], timings: Mapping[str, BlockTiming]) -> dict[str, BlockTiming]:
    """Timings of the blocks that were not measured, fitted to those of their kind that were; none of too few."""
    kinds: dict[str, list[BlockSpec]] = {}
    for block in blocks:
        kinds.setdefault(family(block), []).append(block)
    found: dict[str, BlockTiming] = {}
    for alike in kinds.values():
        known = [block for block in alike if block.key in timings]
        missing = [block for block in alike if block.key not in timings]
        if missing and len(known) >= LEAST_POINTS:
            found |= _fitted(known, missing, timings)
    return found


def _fitted(
    known: Sequence[BlockSpec], missing: Sequence[BlockSpec], timings: Mapping[str, BlockTiming]
) -> dict[str, BlockTiming]:
    features, asked = _features(known), _features(missing)
    best = np.array([timings[block.key].value_ms for block in known])
    typical = np.array([timings[block.key].median_ms for block in known])
    error = usual_error(best / left_out(features, best))
    source = timings[known[0].key]
    lows, middles = asked @ solve(features, best), asked @ solve(features, typical)
    return {
        block.key: BlockTiming(
            asdict(block), (low, max(low, middle)), source.canary_ms, source.measured_at, noisy=False, modelled=error
        )
        for block, low, middle in zip(missing, lows.tolist(), middles.tolist(), strict=True)
    }


def usual_error(ratios: Matrix) -> float:
    """e, so that the truth lies between prediction / (1 + e) and prediction * (1 + e): conformal, of truth / prediction
    where each point was left out.

    Of nine points and fewer it is the largest.
    """
    apart = np.sort(np.maximum(ratios, 1 / ratios))
    return float(apart[min(len(apart), math.ceil(USUAL * (len(apart) + 1))) - 1]) - 1


def _features(blocks: Sequence[BlockSpec]) -> Matrix:
    """(blocks, 5): one, kernels, FLOPs, weight bytes, activation bytes."""
    works = [block_work(block) for block in blocks]
    return np.array([[1.0, w.kernels, w.flops, w.weight_bytes, w.activation_bytes] for w in works])
