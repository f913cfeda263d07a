"""Latency of a candidate from measured blocks. No torch; microseconds a candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nas.errors import NotMeasuredError
from nas.latency.blocks import BlockTiming, Terms
from nas.latency.terms import terms
from nas.records import Latency, request_ms
from nas.workload import Workload
from search_spaces import Candidate

# Relative half-width of the interval: the worst composition error that the method's validation saw on one session
# (shared 2-core machine, minimum estimator, layers in the rotated state).
MODEL_ERROR = 0.10


def compose(
    candidate: Candidate, workload: Workload, timings: Mapping[str, BlockTiming], runtime: str = "torch-eager"
) -> Latency:
    """Weighted sums of blocks.

    The upper bound also holds the blocks' own noise (median over minimum). Raises: NotMeasuredError.
    """
    found = terms(candidate, workload, runtime)
    missing = [str(block) for part in found.values() for _, block in part if block.key not in timings]
    if missing:
        raise NotMeasuredError(f"{candidate}: not measured yet: {', '.join(missing)}; run `nas devices calibrate`")

    def parts(view: str) -> dict[str, float]:
        return {name: max(0.0, _sum(part, timings, view)) for name, part in found.items()}

    best, typical = parts("value_ms"), parts("median_ms")
    least, usual = request_ms(best, workload.new_tokens), request_ms(typical, workload.new_tokens)

    def unsure(ratio: Callable[[float], float]) -> float:
        """What fitted blocks may be off by; those of one fit err alike, so that their errors add."""
        return request_ms({name: abs(_off(part, timings, ratio)) for name, part in found.items()}, workload.new_tokens)

    low = least * (1 - MODEL_ERROR) - unsure(lambda error: error / (1 + error))
    high = max(usual, least) * (1 + MODEL_ERROR) + unsure(lambda error: error)
    return Latency(
        **best, new_tokens=workload.new_tokens, label="composed", low_ms=low, high_ms=high, extrapolated=False
    )


def _sum(part: Terms, timings: Mapping[str, BlockTiming], view: str) -> float:
    total: float = sum(share * getattr(timings[block.key], view) for share, block in part)
    return total


def _off(part: Terms, timings: Mapping[str, BlockTiming], ratio: Callable[[float], float]) -> float:
    fitted = [(share, timings[block.key]) for share, block in part if timings[block.key].modelled is not None]
    return sum(share * timing.value_ms * ratio(timing.modelled or 0.0) for share, timing in fitted)
