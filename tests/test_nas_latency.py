"""Composition arithmetic, the stop rule, and blocks that are really timed."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stored_runs import designs

import nas.workload
import search_spaces
from hardware_profiles.profile import Protocol
from nas.errors import NotMeasuredError, RunnerError
from nas.latency.blocks import BlockSpec, BlockTiming, MeasurementContext, undisturbed
from nas.latency.cache import comparable, ensure_blocks, quiet
from nas.latency.calibrated import LEAST_POINTS
from nas.latency.compose import compose
from nas.latency.decoder_terms import (
    PREFILL_LENGTHS,
    WHOLE_DECODE_DEPTHS,
    WHOLE_PREFILL_DEPTHS,
    depth_shares,
    length_shares,
)
from nas.latency.fitted import complete, component, family, sample
from nas.latency.jobs import preprocessing
from nas.latency.measure import GROUP_BYTES, PASSES, canary_at, groups_of, is_calm, is_enough, measure_blocks
from nas.latency.plan import MOST_ALIKE, STARTING_S, plan
from nas.latency.terms import has_blocks, needed
from nas.latency.work import block_work
from nas.store import Store

WORKLOAD = nas.workload.load("vqa-short")
SPACE = search_spaces.load("micro")


def timing(value: float, canary: float = 1.0) -> BlockTiming:
    return BlockTiming({}, (value, value * 1.5), canary, "2026-01-01T00:00:00+00:00", noisy=False)


def test_composed_latency_follows_the_depth() -> None:
    candidate = SPACE.baseline_candidate

    def truth(block: BlockSpec) -> float:
        prefill, decode = 3.0 + 5.0 * block.depth, 0.5 + 0.25 * block.depth
        return {"decoder_prefill": prefill, "decoder_decode": decode}.get(block.kind, 1.0)

    timings = {block.key: timing(truth(block)) for block in needed(candidate, WORKLOAD)}
    found = compose(candidate, WORKLOAD, timings)
    assert found.prefill_ms == pytest.approx(3.0 + 5.0 * candidate.lm_depth)
    assert found.tpot_ms == pytest.approx(0.5 + 0.25 * candidate.lm_depth)
    assert found.latency_ms == pytest.approx(found.ttft_ms + 7 * found.tpot_ms)
    assert found.low_ms < found.latency_ms < found.high_ms
    assert found.label == "composed"


def test_a_missing_block_is_named_and_never_guessed() -> None:
    with pytest.raises(NotMeasuredError, match="not measured yet: preprocess"):
        compose(SPACE.baseline_candidate, WORKLOAD, {})


@pytest.mark.parametrize("depth", [1, 2, 3, 6, 13, 20, 30])
def test_a_bend_between_measured_depths_is_followed_and_the_nearest_line_goes_on(depth: int) -> None:
    times = [1.0, 5.0, 12.0]  # at 2, 6 and 20 layers: one a layer, then half of it
    expected = depth - 1.0 if depth <= 6 else 5.0 + 0.5 * (depth - 6)
    found = sum(share * time for share, time in zip(depth_shares((2, 6, 20), depth), times, strict=True))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("length", [1, 8, 9, 100, 8192])
def test_brackets_enclose_the_length(length: int) -> None:
    found = [point for point, _ in length_shares(length, PREFILL_LENGTHS)]
    assert found[0] <= max(length, PREFILL_LENGTHS[0]) <= found[-1]


def test_interpolation_is_exact_on_a_line() -> None:
    assert sum(share * point for point, share in length_shares(40, (32, 48))) == pytest.approx(40)


def test_rounds_stop_only_when_the_minimum_is_calm() -> None:
    assert not is_calm([1.0] * 7)
    assert is_calm([1.0] * 8)
    assert not is_calm([2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0])


CONTEXT = MeasurementContext("local-test", "torch-eager", "2", "fp32", 1)


def test_measured_blocks_keep_every_raw_sample() -> None:
    blocks = needed(SPACE.sample(random.Random(1)), WORKLOAD)
    found: dict[str, BlockTiming] = {}
    measure_blocks(blocks, CONTEXT, last_level_cache_mib=1.0, keep=found.update)
    assert set(found) == {block.key for block in blocks}
    for block in blocks:
        assert found[block.key].block["kind"] == block.kind
        assert 24 <= len(found[block.key].samples_ms) <= 60
        assert min(found[block.key].samples_ms) > 0


def test_the_clock_is_injected() -> None:
    ticks = itertools.count()
    found: dict[str, BlockTiming] = {}
    block = needed(SPACE.baseline_candidate, WORKLOAD)[:1]
    measure_blocks(block, CONTEXT, last_level_cache_mib=1.0, clock=lambda: float(next(ticks)), keep=found.update)
    assert set(found[block[0].key].samples_ms) == {1000.0}


def test_a_protocol_of_the_profile_changes_the_rounds_and_what_counts_as_noisy() -> None:
    ticks = itertools.count()
    found: dict[str, BlockTiming] = {}
    block = needed(SPACE.baseline_candidate, WORKLOAD)[:1]
    protocol = Protocol(rounds=3, warmup=1, max_cv=1e-9)

    def clock() -> float:
        return next(ticks) ** 2  # every sample is longer than the one before

    measure_blocks(block, CONTEXT, last_level_cache_mib=1.0, protocol=protocol, clock=clock, keep=found.update)
    assert len(found[block[0].key].samples_ms) == 3 * PASSES
    assert found[block[0].key].noisy


def test_a_quarter_of_the_samples_may_be_faster_than_what_counts() -> None:
    assert undisturbed([132.0 - sample for sample in range(32)]) == 109
    assert undisturbed([3.0, 1.0, 2.0]) == 1
    assert undisturbed([132.0 - sample for sample in range(32)], "min") == 101


def test_other_work_beside_most_samples_hardly_raises_what_counts() -> None:
    assert undisturbed([1.0] + 30 * [40.0]) == pytest.approx(1.25)


def test_pixels_reach_an_encoder_as_preprocessing_leaves_them() -> None:
    """Convolutions are faster where colours lie innermost, so that a timing of others would be of another encoder."""
    (block,) = [one for one in needed(SPACE.baseline_candidate, WORKLOAD) if one.kind == "preprocess"]
    pixels = preprocessing(block)()
    assert pixels.shape == (1, 3, block.resolution, block.resolution)
    assert pixels.is_contiguous(memory_format=torch.channels_last)


def test_passes_over_one_block_are_merged() -> None:
    first = BlockTiming({}, (2.0, 3.0), 1.5, "2026-01-01T00:00:00+00:00", noisy=True, quiet_ms=1.2, switches=1)
    found = first.merged(replace(first, samples_ms=(1.0, 1.0), canary_ms=1.4, quiet_ms=1.3, switches=2))
    assert found.samples_ms == (2.0, 3.0, 1.0, 1.0) and found.value_ms == 1.0
    assert (found.canary_ms, found.calm_canary_ms, found.switches) == (1.4, 1.2, 3)


def test_blocks_are_measured_once_and_kept_group_by_group(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/cache.db")
    blocks = needed(SPACE.baseline_candidate, WORKLOAD)
    asked: list[int] = []

    def measure(missing: list[BlockSpec], keep: Callable[[dict[str, BlockTiming]], None]) -> None:
        asked.append(len(missing))
        keep({missing[0].key: timing(1.0)})
        if len(asked) == 1:
            raise RunnerError("the device died")
        keep({block.key: timing(2.0) for block in missing[1:]})

    with pytest.raises(RunnerError):
        ensure_blocks(blocks, store, CONTEXT, measure, lambda: 1.0)
    first = ensure_blocks(blocks, store, CONTEXT, measure, lambda: 1.0)
    assert ensure_blocks(blocks, store, CONTEXT, measure, lambda: 1.0) == first == store.block_timings(CONTEXT)
    assert asked == [len(blocks), len(blocks) - 1]
    store.close()


def test_timings_are_brought_to_the_quietest_session() -> None:
    found = quiet({"a": timing(1.0, canary=1.0), "b": timing(1.2, canary=1.2)})
    assert found["a"].value_ms == pytest.approx(found["b"].value_ms) == 1.0


def test_pocket_needs_fewer_than_sixty_measured_blocks() -> None:
    space = search_spaces.load("pocket")
    generator = random.Random(0)
    drawn = [space.sample(generator) for _ in range(500)]
    blocks = {block.key: block for candidate in drawn for block in needed(candidate, WORKLOAD)}.values()
    every = [block for block in blocks if block.kind == "projector"]
    assert len(blocks) - len(every) + len(sample(every)) < 60


def test_a_connector_that_was_not_measured_follows_those_that_were() -> None:
    space = search_spaces.load("pocket")
    blocks = {b.key: b for c in space.candidates for b in needed(c, WORKLOAD) if b.kind == "projector"}.values()

    def truth(block: BlockSpec) -> float:
        work = block_work(block)
        return 0.05 + 0.01 * work.kernels + work.flops / 1e8 + work.weight_bytes / 2e7 + work.activation_bytes / 1e7

    chosen = sample(list(blocks))
    fitted = complete(list(blocks), {block.key: timing(truth(block)) for block in chosen})
    assert len(chosen) + len(fitted) == len(blocks)
    for block in blocks:
        if block.key in fitted:
            assert fitted[block.key].value_ms == pytest.approx(truth(block), rel=0.02)
            assert fitted[block.key].modelled is not None and fitted[block.key].modelled < 0.05


def test_only_what_fits_the_budget_is_measured_and_a_second_time_what_it_lacked() -> None:
    space = search_spaces.load("edge")
    drawn = [candidate for candidate in space.draw(400, random.Random(0)) if has_blocks(candidate, WORKLOAD)]
    blocks = list({block.key: block for candidate in drawn for block in needed(candidate, WORKLOAD)}.values())
    found = plan(blocks, (), 600, 1.5)
    assert found.is_bounded and found.passes == 1 and found.seconds <= 600 < found.seconds_of_all
    assert len(found.new) == len(found.chosen) == len({block.key for block in found.chosen})
    assert {block.lm for block in found.chosen if block.kind == "decoder_prefill"} == set(space.axes["lm"])
    assert {block.encoder for block in found.chosen if block.kind == "vision"} == set(space.axes["encoder"])
    again = plan(blocks, [block.key for block in found.chosen], 600, 1.5)
    assert again.is_bounded and {block.key for block in again.chosen} >= {block.key for block in found.chosen}
    most = Counter((block.kind, component(block)) for block in again.chosen)
    assert max(count for (_, name), count in most.items() if name) <= MOST_ALIKE
    families = Counter(map(family, found.chosen))
    assert set(families) == set(map(family, blocks)) and min(families.values()) >= LEAST_POINTS
    assert plan(blocks, (), None, 1.5).passes == PASSES and not plan(blocks, (), None, 1.5).is_bounded


def test_a_small_space_is_measured_in_fewer_passes_before_any_of_it_is_fitted() -> None:
    few = needed(designs(4)[0], WORKLOAD)
    all_s = plan(few, (), None, 1.5).seconds_of_all
    once_s = (all_s - STARTING_S) / PASSES
    found = [plan(few, (), STARTING_S + share * once_s, 1.5) for share in (PASSES + 0.1, 1.5, 0.5)]
    assert [one.passes for one in found] == [PASSES, 1, 1]
    assert [one.is_bounded for one in found] == [False, False, True]
    assert found[1].seconds == pytest.approx(STARTING_S + once_s)


def test_a_decoder_that_was_not_measured_follows_those_that_were() -> None:
    names = ("smollm2-135m", "qwen3-0.6b")
    blocks = [
        BlockSpec("decoder_prefill", 1, lm=lm, length=length, depth=depth)
        for lm in names for length in (16, 64, 256, 1024) for depth in (2, 20)
    ]  # fmt: skip

    def truth(block: BlockSpec) -> float:
        return 0.2 * block.depth + block_work(block).flops / 1e8

    left = {blocks[3].key, blocks[12].key}
    found = complete(blocks, {block.key: timing(truth(block)) for block in blocks if block.key not in left})
    assert set(found) == left
    for block in (blocks[3], blocks[12]):
        assert found[block.key].value_ms == pytest.approx(truth(block), rel=0.1)
        assert found[block.key].modelled is not None


def test_large_modules_are_made_once_a_pass_in_groups_that_fit_memory() -> None:
    blocks = [
        BlockSpec("decoder_prefill", 1, lm=lm, length=length, depth=20)
        for length in (16, 64, 256) for lm in ("qwen3-0.6b", "qwen2.5-0.5b", "smollm2-360m", "smollm2-1.7b")
    ]  # fmt: skip
    groups = groups_of(blocks, random.Random(0))
    assert sorted(block.key for group in groups for block in group) == sorted(block.key for block in blocks)
    for group in groups:
        weights = {block.lm: block_work(block).weight_bytes for block in group}
        assert len(weights) == 1 or sum(weights.values()) <= GROUP_BYTES
    assert all(sum(any(block.lm == lm for block in group) for group in groups) == 1 for lm in {b.lm for b in blocks})


def test_long_samples_are_enough_when_there_are_two() -> None:
    assert not is_enough([5e3]) and is_enough([2.1e3, 2.0e3]) and not is_enough([10.0] * 4)


def test_a_whole_decoder_is_extended_by_its_layers() -> None:
    """t(D) = 2 + 3 D at both depths gives 2 + 3 D at any."""
    candidate = SPACE.baseline_candidate
    timings = {}
    for block in needed(candidate, WORKLOAD, "onnxruntime"):
        timings[block.key] = timing(2.0 + 3.0 * block.depth if block.kind.startswith("decoder") else 1.0)
    assert {block.depth for block in needed(candidate, WORKLOAD, "onnxruntime")} == {
        0,
        *WHOLE_PREFILL_DEPTHS,
        *WHOLE_DECODE_DEPTHS,
    }
    found = compose(candidate, WORKLOAD, timings, "onnxruntime")
    assert found.prefill_ms == pytest.approx(2.0 + 3.0 * candidate.lm_depth)
    assert found.tpot_ms == pytest.approx(2.0 + 3.0 * candidate.lm_depth)


def test_the_canary_runs_with_the_threads_of_the_blocks_and_keeps_the_callers() -> None:
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
