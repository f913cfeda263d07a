"""Latency of a single candidate on this machine."""

from __future__ import annotations

from hardware_profiles import HardwareProfile
from nas.latency.blocks import needed
from nas.latency.cache import ensure_blocks
from nas.latency.compose import compose
from nas.latency.end_to_end import measure_requests
from nas.latency.measure import context_here
from nas.model import build
from nas.records import Latency
from nas.workload import Workload
from search_spaces import Candidate


def composed(candidate: Candidate, workload: Workload, profile: HardwareProfile) -> Latency:
    """From cached blocks; only what is missing is measured."""
    from nas.store import Store

    store = Store.user_cache()
    try:
        timings = ensure_blocks(
            needed(candidate, workload), store, context_here(profile.id, profile.compute.threads or 1),
            last_level_cache_mib=profile.memory.last_level_cache_mib.value,
        )  # fmt: skip
    finally:
        store.close()
    return compose(candidate, workload, timings)


def measured(candidate: Candidate, workload: Workload, profile: HardwareProfile) -> Latency:
    """Whole requests, with random weights: speed does not depend on their values."""
    model = build(candidate, weights="random")
    return measure_requests({"": model}, workload, threads=profile.compute.threads or 1)[""].latency
