"""A profile says what is known of a space, and no more."""

from __future__ import annotations

from pathlib import Path

import yaml

import hardware_profiles
import nas.workload
import search_spaces
from nas.cost import cost
from nas.latency.blocks import BlockSpec, BlockTiming
from nas.latency.compose import compose
from nas.latency.estimate import estimate
from nas.latency.terms import needed
from nas.space_profile import composed_of, estimated_on, profile

MICRO = search_spaces.load("micro")
WORKLOAD = nas.workload.load("vqa-short")
LATENCY = "latency_ms <= 80% of baseline"


def timing(block: BlockSpec) -> BlockTiming:
    """A made-up timing that differs from block to block."""
    value = 1 + int(block.key, 16) % 97 / 10
    return BlockTiming(block={}, samples_ms=(value, value * 1.01), canary_ms=1.0, measured_at="2026-01-01", noisy=False)


BLOCKS = {block.key: block for candidate in MICRO.candidates for block in needed(candidate, WORKLOAD)}
TIMINGS = {key: timing(block) for key, block in BLOCKS.items()}


def test_a_latency_constraint_is_counted_where_every_block_is_known() -> None:
    found = profile(MICRO, WORKLOAD, [LATENCY], "here", composed_of(TIMINGS, WORKLOAD))
    latencies = [compose(candidate, WORKLOAD, TIMINGS).latency_ms for candidate in MICRO.candidates]
    limit = 0.8 * compose(MICRO.baseline_candidate, WORKLOAD, TIMINGS).latency_ms
    assert found.constraints[0].feasible == sum(value <= limit for value in latencies) == found.feasible
    assert (found.figures["latency_ms"].low, found.figures["latency_ms"].label) == (min(latencies), "composed")


def test_a_missing_block_leaves_the_constraint_undecided_and_says_how_many() -> None:
    lost = next(key for key, block in BLOCKS.items() if block.kind == "vision" and block.resolution == 112)
    partly = {key: value for key, value in TIMINGS.items() if key != lost}
    found = profile(MICRO, WORKLOAD, [LATENCY, "params <= 300000"], "here", composed_of(partly, WORKLOAD))
    latency, params = found.constraints
    assert latency.feasible is None
    assert latency.reason is not None
    assert f"not measured for {MICRO.size - found.figures['latency_ms'].known}" in latency.reason
    assert params.feasible is not None
    assert found.feasible is None


def test_of_a_device_elsewhere_latencies_are_estimates_of_every_few_candidates() -> None:
    device = hardware_profiles.load("raspberry-pi-5-8gb")
    found = profile(MICRO, WORKLOAD, [LATENCY], device.id, estimated_on(device, WORKLOAD), most=50)
    step = -(-MICRO.size // 50)
    latencies = [estimate(one, WORKLOAD, device).latency_ms for one in MICRO.candidates[::step]]
    assert found.figures["latency_ms"].label == "estimated:datasheet"
    assert found.figures["latency_ms"].known == found.surveyed == len(latencies) <= 50
    assert found.constraints[0].feasible == sum(one <= found.constraints[0].limit for one in latencies)  # type: ignore[operator]


def test_without_a_device_latency_is_not_known() -> None:
    found = profile(MICRO, WORKLOAD, [LATENCY])
    assert "latency_ms" not in found.figures
    assert found.constraints[0].reason == "latency_ms needs --device"


def test_another_device_is_not_decided_by_this_ones_timings() -> None:
    found = profile(MICRO, WORKLOAD, ["latency_ms@there <= 5"], "here", composed_of(TIMINGS, WORKLOAD))
    assert found.constraints[0].feasible is None


def test_quality_is_not_known_before_a_search() -> None:
    assert profile(MICRO, WORKLOAD, ["quality >= 0.5"]).constraints[0].reason == "quality is known after a search"


def test_percent_of_a_candidate_file_is_counted(tmp_path: Path) -> None:
    reference = MICRO.candidates[5]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(reference.to_dict()))
    (reach,) = profile(MICRO, WORKLOAD, [f"params <= 150% of {path}"]).constraints
    limit = 1.5 * cost(reference, WORKLOAD).params
    assert reach.feasible == sum(cost(candidate, WORKLOAD).params <= limit for candidate in MICRO.candidates)
