"""Latency of a candidate from measured blocks. No torch; microseconds a candidate."""

from __future__ import annotations

from collections.abc import Mapping

from nas.errors import NotMeasuredError
from nas.latency.blocks import (
    DECODE_LENGTHS,
    LENGTHS,
    BlockSpec,
    BlockTiming,
    bracket,
    interpolate,
    lengths,
    needed,
    preprocess_block,
    projector_block,
    vision_block,
)
from nas.records import Latency
from nas.workload import Workload
from search_spaces import Candidate

# Relative half-width of the interval: the worst composition error that the method's validation saw on one session
# (shared 2-core machine, minimum estimator, layers in the rotated state).
MODEL_ERROR = 0.10


def compose(candidate: Candidate, workload: Workload, timings: Mapping[str, BlockTiming]) -> Latency:
    """Shell plus depth x layer for the decoder, whole blocks for the rest.

    The upper bound also holds the blocks' own noise (median over minimum). Raises: NotMeasuredError.
    """
    missing = [str(block) for block in needed(candidate, workload) if block.key not in timings]
    if missing:
        raise NotMeasuredError(f"{candidate}: not measured yet: {', '.join(missing)}; run `nas devices calibrate`")
    images = workload.images * workload.batch
    prompt, context = lengths(candidate, workload)

    def decoder(phase: str, length: int, grid: tuple[int, ...], view: str) -> float:
        at = {}
        for point in bracket(length, grid):
            shell = timings[BlockSpec(f"shell_{phase}", workload.batch, lm=candidate.lm, length=point).key]  # type: ignore[arg-type]
            layer = timings[BlockSpec(f"layer_{phase}", workload.batch, lm=candidate.lm, length=point).key]  # type: ignore[arg-type]
            at[point] = getattr(shell, view) + candidate.lm_depth * getattr(layer, view)
        return interpolate(length, at)

    def parts(view: str) -> dict[str, float]:
        return {
            "preprocess_ms": getattr(timings[preprocess_block(candidate, images).key], view),
            "vision_ms": getattr(timings[vision_block(candidate, images).key], view),
            "projector_ms": getattr(timings[projector_block(candidate, images).key], view),
            "prefill_ms": decoder("prefill", prompt, LENGTHS, view),
            "tpot_ms": decoder("decode", context, DECODE_LENGTHS, view),
        }

    def total(values: dict[str, float]) -> float:
        return sum(values.values()) + (workload.new_tokens - 2) * values["tpot_ms"]

    best, typical = parts("value_ms"), parts("median_ms")
    low, high = total(best) * (1 - MODEL_ERROR), max(total(typical), total(best)) * (1 + MODEL_ERROR)
    return Latency(**best, new_tokens=workload.new_tokens, label="composed", low_ms=low, high_ms=high)
