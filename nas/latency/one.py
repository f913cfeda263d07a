"""Latency of a single candidate on this machine."""

from __future__ import annotations

from hardware_profiles import HardwareProfile
from nas.latency.blocks import needed
from nas.latency.cache import device_timings
from nas.latency.compose import compose
from nas.latency.end_to_end import measure_requests
from nas.model import build
from nas.records import Latency
from nas.workload import Workload
from search_spaces import Candidate


def composed(candidate: Candidate, workload: Workload, profile: HardwareProfile) -> Latency:
    """From cached blocks; only what is missing is measured."""
    return compose(candidate, workload, device_timings(profile, needed(candidate, workload)))


def measured(candidate: Candidate, workload: Workload, profile: HardwareProfile) -> Latency:
    """Whole requests, with random weights: speed does not depend on their values."""
    model = build(candidate, weights="random")
    return measure_requests({"": model}, workload, threads=profile.measuring_threads)[""].latency
