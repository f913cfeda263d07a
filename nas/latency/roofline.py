"""What a hardware profile gives the estimates: class, peak and bandwidth; and shares of its own where it has them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hardware_profiles import HardwareProfile, ProfileError
from hardware_profiles.profile import Efficiency
from nas.cost_rows import Matrix
from nas.latency.shares import NORMAL_80, Datasheet, Estimate, Kind, PhaseWork, is_memory_bound, roofline_ms

# Where a CPU multiplies int8 or bf16, the fp32 rate of its vector units stays the measure, as for published rows.
CPU_DTYPE = "fp32"


def device_kind(profile: HardwareProfile) -> Kind:
    """Class of device that the shares are kept by."""
    identity = profile.identity
    phone, apple = identity.device_class == "phone", identity.vendor == "Apple"
    if identity.unit == "npu":
        return "apple_npu" if apple else "npu"
    if identity.unit == "cpu":
        return "apple_cpu" if apple else "phone_cpu" if phone else "cpu"
    if apple:
        return "apple_gpu"
    if phone:
        return "integrated_gpu"
    if identity.device_class == "edge_board":
        return "edge_gpu"
    return "server_gpu" if identity.device_class == "server" else "gpu"


def datasheet(profile: HardwareProfile, dtype: str = "fp32") -> Datasheet:
    """Raises: ProfileError naming the figure that is null."""
    kind = device_kind(profile)
    needed = CPU_DTYPE if profile.identity.unit == "cpu" else dtype
    figure = profile.compute.peak_tflops.get(needed)  # type: ignore[call-overload]
    peak = None if figure is None else figure.value
    bandwidth = profile.memory.bandwidth_gbps.value
    if peak is None or bandwidth is None:
        lacks = f"compute.peak_tflops.{needed}" if peak is None else "bandwidth_gbps of the outermost of memory.levels"
        here = profile.matches_this_machine()
        do = "measure it: --how composed" if here else "give it a value in a YAML of your own"
        raise ProfileError(f"device {profile.id!r} cannot be estimated: {lacks} is null; {do}")
    return Datasheet(kind, 1e12 * peak, 1e9 * bandwidth)


def own_eta(profile: HardwareProfile, work: PhaseWork, sheet: Datasheet) -> Efficiency | None:
    """The profile's own share of the peak that bounds this work, where it has one."""
    return profile.estimator.eta_memory if is_memory_bound(work, sheet) else profile.estimator.eta_compute


def own_share(
    profile: HardwareProfile, works: Sequence[PhaseWork], sheet: Datasheet, found: list[Estimate], covariance: Matrix
) -> tuple[list[Estimate], Matrix]:
    """The estimates by the profile's own shares where it has them; their low and high are taken to hold 80 %."""
    replaced, covariance = list(found), covariance.copy()
    for index, work in enumerate(works):
        own = own_eta(profile, work, sheet)
        if own is not None:
            log_sd = math.log(own.high / own.low) / (2 * NORMAL_80)
            replaced[index] = Estimate(roofline_ms(work, sheet) / own.mid, log_sd)
            covariance[index, :] = covariance[:, index] = 0.0
            covariance[index, index] = log_sd**2
    return replaced, covariance
