"""Composition arithmetic, the stop rule, and blocks that are really timed."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

import nas.workload
import search_spaces
from nas.errors import NotMeasuredError
from nas.latency.blocks import LENGTHS, BlockTiming, MeasurementContext, bracket, interpolate, needed
from nas.latency.cache import comparable, ensure_blocks
from nas.latency.compose import compose
from nas.latency.measure import canary_at, is_calm, measure_blocks
from nas.store import Store

WORKLOAD = nas.workload.load("vqa-short")
SPACE = search_spaces.load("micro")


def timing(value: float, canary: float = 1.0) -> BlockTiming:
    return BlockTiming({}, (value, value * 1.5), canary, "2026-01-01T00:00:00+00:00", noisy=False)


def test_composed_latency_is_shell_plus_depth_times_layer() -> None:
    candidate = SPACE.baseline_candidate
    values = {"shell_prefill": 3.0, "layer_prefill": 5.0, "shell_decode": 0.5, "layer_decode": 0.25}
    timings = {block.key: timing(values.get(block.kind, 1.0)) for block in needed(candidate, WORKLOAD)}
    found = compose(candidate, WORKLOAD, timings)
    assert found.prefill_ms == pytest.approx(3.0 + 5.0 * candidate.lm_depth)
    assert found.tpot_ms == pytest.approx(0.5 + 0.25 * candidate.lm_depth)
    assert found.latency_ms == pytest.approx(found.ttft_ms + 7 * found.tpot_ms)
    assert found.low_ms < found.latency_ms < found.high_ms
    assert found.label == "composed"


def test_a_missing_block_is_named_and_never_guessed() -> None:
    with pytest.raises(NotMeasuredError, match="not measured yet: preprocess"):
        compose(SPACE.baseline_candidate, WORKLOAD, {})


@pytest.mark.parametrize("length", [1, 8, 9, 100, 4096])
def test_brackets_enclose_the_length(length: int) -> None:
    found = bracket(length, LENGTHS)
    assert found[0] <= max(length, LENGTHS[0]) <= found[-1]


def test_interpolation_is_exact_on_a_line() -> None:
    assert interpolate(40, {32: 3.2, 48: 4.8}) == pytest.approx(4.0)


def test_rounds_stop_only_when_the_minimum_is_calm() -> None:
    assert not is_calm([1.0] * 7)
    assert is_calm([1.0] * 8)
    assert not is_calm([2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0])


def test_measured_blocks_keep_every_raw_sample() -> None:
    candidate = SPACE.sample(random.Random(1))
    blocks = needed(candidate, WORKLOAD)
    for block, found in zip(blocks, measure_blocks(blocks, threads=1), strict=True):
        assert found.block["kind"] == block.kind
        assert 8 <= len(found.samples_ms) <= 20
        assert min(found.samples_ms) > 0


def test_the_clock_is_injected() -> None:
    ticks = itertools.count()
    (block,) = needed(SPACE.baseline_candidate, WORKLOAD)[:1]
    (found,) = measure_blocks([block], threads=1, clock=lambda: float(next(ticks)))
    assert set(found.samples_ms) == {1000.0}


def test_blocks_are_measured_once_and_kept(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/cache.db")
    context = MeasurementContext("local-test", "torch-eager", "2", "fp32", 1)
    blocks = needed(SPACE.baseline_candidate, WORKLOAD)
    heard: list[tuple[int, int]] = []

    def ensure() -> dict[str, BlockTiming]:
        return ensure_blocks(
            blocks, store, context, last_level_cache_mib=1.0,
            progress=lambda done, total: heard.append((done, total)), canary=canary,
        )  # fmt: skip

    def canary(threads: int) -> float:
        assert threads == context.threads
        return next(iter(store.block_timings(context).values())).canary_ms

    first = ensure()
    assert heard == [(len(blocks), len(blocks))]
    assert ensure() == first == store.block_timings(context)
    assert heard == [(len(blocks), len(blocks))]
    store.close()


def test_the_canary_runs_with_the_threads_of_the_blocks_and_keeps_the_callers() -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert canary_at(1) > 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_only_sessions_busier_than_now_are_measured_again() -> None:
    stored = {"busy": timing(1.0, canary=2.0), "same": timing(1.0, canary=1.1), "quiet": timing(1.0, canary=0.5)}
    assert set(comparable(stored, canary=1.0)) == {"same", "quiet"}


def test_widely_spread_samples_are_measured_again() -> None:
    contended = BlockTiming({}, (1.0, 3.0, 4.0), 1.0, "2026-01-01T00:00:00+00:00", noisy=True)
    assert set(comparable({"contended": contended, "calm": timing(1.0)}, canary=1.0)) == {"calm"}
