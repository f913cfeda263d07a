"""What a datasheet says of a piece of work: t = max(FLOPs / (eta_c peak), bytes / (eta_m bandwidth)) + overheads.

`eta` are the shares of the datasheet that published measurements reach, by class of device: the 10th, 50th and 90th
percentile over the rows that `bench/latency/estimates` reads, rounded outwards, so that low and high bound about 80 %.
A compute share above 1 is no mistake: kernels that accumulate in fp16 pass a peak that is given for fp32.
"""

from __future__ import annotations

from dataclasses import dataclass

from hardware_profiles import HardwareProfile, ProfileError


@dataclass(frozen=True, slots=True)
class Span:
    """Pessimistic, middle and optimistic value."""

    worst: float
    middle: float
    best: float


@dataclass(frozen=True, slots=True)
class Reached:
    """Shares of the datasheet's peak and bandwidth."""

    compute: Span
    memory: Span


# memory: decode rates; compute: prefill rates. GPUs: 40 and 59 rows of 14 devices; Apple: 10 and 9 rows; Jetson: 17
# decode rows, compute assumed; phones: 37 decode rows, compute assumed; CPUs: 39 decode rows of 5
# devices and 12 prefill rows of one, whose int8 products pass the fp32 peak.
REACHED = {
    "gpu": Reached(Span(0.45, 0.95, 1.45), Span(0.45, 0.72, 0.92)),
    "apple_gpu": Reached(Span(0.2, 0.6, 0.7), Span(0.33, 0.5, 0.73)),
    "edge_gpu": Reached(Span(0.05, 0.3, 0.8), Span(0.25, 0.6, 0.92)),
    "phone": Reached(Span(0.1, 0.3, 0.7), Span(0.28, 0.46, 0.7)),
    "cpu": Reached(Span(0.3, 1.0, 1.9), Span(0.03, 0.36, 0.8)),
}
# Eager frameworks at batch 1 reach less than the tuned runtimes of the published rows: their lower end, assumed.
EAGER = 0.5
OVERHEAD_US = Span(20, 10, 2)  # of starting one kernel; assumed
SMALL_ROWS, LEAST_FILL = 32, 0.5  # below this many rows a matrix product cannot fill the units: eta_c halves; assumed


def device_kind(profile: HardwareProfile) -> str:
    """Class of device that the shares are kept by."""
    identity = profile.identity
    if identity.device_class == "phone":
        return "phone"
    if identity.unit == "cpu":
        return "cpu"
    if identity.device_class == "edge_board":
        return "edge_gpu"
    return "apple_gpu" if identity.vendor == "Apple" else "gpu"


def reached(profile: HardwareProfile) -> Reached:
    """Shares for a device: its profile's own, else those of its class."""
    found, own = REACHED[device_kind(profile)], profile.estimator
    compute, memory = own.eta_compute, own.eta_memory
    return Reached(
        found.compute if compute is None else Span(compute.low, compute.mid, compute.high),
        found.memory if memory is None else Span(memory.low, memory.mid, memory.high),
    )


def rates(profile: HardwareProfile, dtype: str = "fp32") -> tuple[float, float]:
    """(FLOPs per second, bytes per second) of the datasheet. Raises: ProfileError naming the figure that is null."""
    figure = profile.compute.peak_tflops.get(dtype)  # type: ignore[call-overload]
    peak = None if figure is None else figure.value
    bandwidth = profile.memory.bandwidth_gbps.value
    if peak is None or bandwidth is None:
        lacks = f"compute.peak_tflops.{dtype}" if peak is None else "bandwidth_gbps of the outermost of memory.levels"
        raise ProfileError(
            f"device {profile.id!r} cannot be estimated: {lacks} is null; give it a value in a YAML of your own"
        )
    return 1e12 * peak, 1e9 * bandwidth


def span_ms(
    flops: float, moved_bytes: float, rows: float, rate: tuple[float, float], shares: Reached, kernels: float = 0
) -> Span:
    """Milliseconds of one phase; `worst` is the longest."""
    fill = min(1.0, max(LEAST_FILL, rows / SMALL_ROWS))
    peak, bandwidth = rate

    def at(compute: float, memory: float, overhead_us: float) -> float:
        busy_s = max(flops / (fill * compute * peak), moved_bytes / (memory * bandwidth))
        return 1e3 * busy_s + 1e-3 * overhead_us * kernels

    compute, memory = shares.compute, shares.memory
    return Span(
        at(compute.worst, memory.worst, OVERHEAD_US.worst),
        at(compute.middle, memory.middle, OVERHEAD_US.middle),
        at(compute.best, memory.best, OVERHEAD_US.best),
    )
