"""Latency read off a datasheet, for a device that is not at hand: an interval with a middle, never a measurement.

Roofline by phase: t = max(FLOPs / (eta_c peak), bytes / (eta_m bandwidth)) + kernels x overhead. A roofline is not a
latency: calibrated with large products it still missed prefill and decode of small models by 22 to 70 %, so the
efficiencies span what published measurements reach and the interval is wide on purpose. The middle is optimistic for
small models in eager mode: on one 2-core server with calibrated figures all of 12 measured designs fell inside the
interval, but the middle was 13 to 37 % below each. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from hardware_profiles import HardwareProfile, ProfileError
from nas.cost import DTYPE_BYTES, cost
from nas.records import Cost, Latency
from nas.workload import Workload
from search_spaces import Candidate
from search_spaces.catalogue import encoder, language_model


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of the datasheet's figures that are reached, and what starting one kernel costs."""

    compute: float
    memory: float
    overhead_us: float


# `memory`: share of the datasheet's bandwidth in published decode rates (median 0.63, p10 0.32, p90 0.84).
# `compute`: from about half of the roofline at hundreds of tokens (Vidur, A100 and H100) to large products; the lower
# end and the overheads are assumptions, chosen wide.
WORST = Efficiency(compute=0.3, memory=0.25, overhead_us=20)
MIDDLE = Efficiency(compute=0.6, memory=0.65, overhead_us=10)
BEST = Efficiency(compute=0.8, memory=0.85, overhead_us=2)

# Kernels in eager mode, counted by hand: norms, projections, rotary, attention, gated FFN and residuals of one decoder
# layer; the same of a ViT block; a whole CNN is taken as some 16 inverted bottlenecks of nine kernels each.
DECODER_KERNELS, VIT_KERNELS, CNN_KERNELS, PROJECTOR_KERNELS, SHELL_KERNELS = 24, 14, 150, 6, 10
# Decoding a photo of 640 x 480 and shrinking it happens on a CPU that no profile describes: 1 to 20 ms, assumed.
PREPROCESS_MS = (20.0, 5.0, 1.0)


@dataclass(frozen=True, slots=True)
class _Phase:
    """What one phase computes, moves and starts."""

    flops: float
    moved_bytes: float
    kernels: int

    def ms(self, peak_flops: float, bytes_per_s: float, reached: Efficiency) -> float:
        busy_s = max(self.flops / (reached.compute * peak_flops), self.moved_bytes / (reached.memory * bytes_per_s))
        return 1e3 * busy_s + 1e-3 * reached.overhead_us * self.kernels


def estimate(candidate: Candidate, workload: Workload, profile: HardwareProfile) -> Latency:
    """Latency in float32 of one request by the datasheet; `low_ms` and `high_ms` bound what may be expected.

    Raises: ProfileError when the profile lacks the fp32 peak or the bandwidth.
    """
    figure = profile.compute.peak_tflops.get("fp32")
    peak = None if figure is None else figure.value
    bandwidth = profile.memory.bandwidth_gbps.value
    if peak is None or bandwidth is None:
        lacks = "bandwidth_gbps of the outermost of memory.levels" if bandwidth is None else "compute.peak_tflops.fp32"
        raise ProfileError(
            f"device {profile.id!r} cannot be estimated: {lacks} is null; give it a value in a YAML of your own"
        )
    phases = _phases(candidate, workload, cost(candidate, workload))

    def parts(reached: Efficiency, preprocess_ms: float) -> dict[str, float]:
        found = {name: phase.ms(1e12 * peak, 1e9 * bandwidth, reached) for name, phase in phases.items()}
        return {"preprocess_ms": preprocess_ms * workload.images * workload.batch, **found}

    worst, middle, best = (parts(reached, ms) for reached, ms in zip((WORST, MIDDLE, BEST), PREPROCESS_MS, strict=True))
    return Latency(
        **middle,
        new_tokens=workload.new_tokens,
        label="estimated:datasheet",
        low_ms=_total(best, workload),
        high_ms=_total(worst, workload),
    )


def _total(parts: dict[str, float], workload: Workload) -> float:
    return sum(parts.values()) + (workload.new_tokens - 2) * parts["tpot_ms"]


def _phases(candidate: Candidate, workload: Workload, costs: Cost) -> dict[str, _Phase]:
    """Weights are read once a phase; of activations the closed form counts the largest, read and written."""
    spec, lm = encoder(candidate.encoder), language_model(candidate.lm)
    activations = 2 * costs.activation_bytes
    head_bytes = lm.vocab * lm.hidden * DTYPE_BYTES
    body_bytes = costs.lm_body_params * DTYPE_BYTES + head_bytes
    vision_kernels = VIT_KERNELS * spec.layers if spec.layers is not None else CNN_KERNELS
    decoder_kernels = SHELL_KERNELS + DECODER_KERNELS * candidate.lm_depth
    return {
        "vision_ms": _Phase(costs.vision_flops, costs.encoder_params * DTYPE_BYTES + activations, vision_kernels),
        "projector_ms": _Phase(costs.projector_flops, costs.projector_params * DTYPE_BYTES, PROJECTOR_KERNELS),
        "prefill_ms": _Phase(costs.prefill_flops, body_bytes + activations, decoder_kernels),
        "tpot_ms": _Phase(costs.decode_flops, body_bytes + costs.kv_bytes, decoder_kernels),
    }
