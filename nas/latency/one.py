"""Latency of a single candidate on one device."""

from __future__ import annotations

from contextlib import closing

from hardware_profiles import HardwareProfile
from nas.latency.compose import compose
from nas.latency.device import Device
from nas.latency.request import EndToEnd
from nas.latency.terms import needed
from nas.records import Latency
from nas.store import Store
from nas.workload import Workload
from search_spaces import Candidate


def composed(
    candidate: Candidate,
    workload: Workload,
    profile: HardwareProfile,
    runtime: str = "torch-eager",
    dtype: str = "fp32",
) -> Latency:
    """From cached blocks; only what is missing is measured."""
    with closing(Store.user_cache()) as store:
        timings = Device(profile, store, runtime, dtype).timings(needed(candidate, workload, runtime))
    return compose(candidate, workload, timings, runtime)


def measured(
    candidate: Candidate,
    workload: Workload,
    profile: HardwareProfile,
    runtime: str = "torch-eager",
    dtype: str = "fp32",
    sustained_s: float = 0,
) -> EndToEnd:
    """Whole requests, with random weights: speed does not depend on their values."""
    with closing(Store.user_cache()) as store:
        return Device(profile, store, runtime, dtype).requests({"": candidate}, workload, sustained_s=sustained_s)[""]
