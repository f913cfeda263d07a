"""Latency of a candidate from measured blocks. No torch; microseconds a candidate."""

from __future__ import annotations

from collections.abc import Mapping

from nas.errors import NotMeasuredError
from nas.latency.blocks import (
    BlockTiming,
    decoder_parts,
    depth_shares,
    interpolate,
    lengths,
    needed,
    preprocess_block,
    projector_block,
    vision_block,
)
from nas.records import Latency, request_ms
from nas.workload import Workload
from search_spaces import Candidate

# Relative half-width of the interval: the worst composition error that the method's validation saw on one session
# (shared 2-core machine, minimum estimator, layers in the rotated state).
MODEL_ERROR = 0.10


def compose(
    candidate: Candidate, workload: Workload, timings: Mapping[str, BlockTiming], runtime: str = "torch-eager"
) -> Latency:
    """The decoder by its parts and depth, whole blocks for the rest.

    The upper bound also holds the blocks' own noise (median over minimum). Raises: NotMeasuredError.
    """
    missing = [str(block) for block in needed(candidate, workload, runtime) if block.key not in timings]
    if missing:
        raise NotMeasuredError(f"{candidate}: not measured yet: {', '.join(missing)}; run `nas devices calibrate`")
    images = workload.images * workload.batch
    prompt, context = lengths(candidate, workload)
    projector = timings[projector_block(candidate, images).key]

    def decoder(phase: str, length: int, view: str) -> float:
        parts = decoder_parts(phase, runtime)
        total = 0.0
        for part, share in zip(parts, depth_shares([p.depth for p in parts], candidate.lm_depth), strict=True):
            blocks = part.blocks(workload.batch, candidate.lm, length)
            at = {block.length: getattr(timings[block.key], view) for block in blocks}
            total += share * interpolate(length, at)
        return total

    def parts(view: str) -> dict[str, float]:
        return {
            "preprocess_ms": getattr(timings[preprocess_block(candidate, images).key], view),
            "vision_ms": getattr(timings[vision_block(candidate, images).key], view),
            "projector_ms": getattr(projector, view),
            "prefill_ms": decoder("prefill", prompt, view),
            "tpot_ms": decoder("decode", context, view),
        }

    best, typical = parts("value_ms"), parts("median_ms")
    least, usual = request_ms(best, workload.new_tokens), request_ms(typical, workload.new_tokens)
    fitted = (projector.modelled or 0.0) * best["projector_ms"]
    low = least * (1 - MODEL_ERROR) - fitted
    high = max(usual, least) * (1 + MODEL_ERROR) + fitted
    return Latency(
        **best, new_tokens=workload.new_tokens, label="composed", low_ms=low, high_ms=high, extrapolated=False
    )
