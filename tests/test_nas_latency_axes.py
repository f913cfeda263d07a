"""Every axis of a candidate has a latency, composed of few blocks and measured end to end."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
import torch

import nas.workload
import search_spaces
from hardware_profiles import load
from nas.errors import NotMeasuredError
from nas.latency.amounts import amounts
from nas.latency.backends.eager import EagerBackend
from nas.latency.blocks import BlockSpec, BlockTiming, MeasurementContext
from nas.latency.compose import compose
from nas.latency.end_to_end import measure_requests
from nas.latency.estimate import estimate
from nas.latency.request import Request
from nas.latency.runner_messages import check_messages
from nas.latency.terms import has_blocks, needed, terms
from nas.latency.work import block_work
from nas.workload import Workload
from search_spaces import Candidate

BASELINE = search_spaces.load("micro").baseline
ONE = nas.workload.load("vqa-short")
CLIP = Workload(name="clip", frames=5, prompt_tokens=4, new_tokens=3)
TURNS = Workload(name="turns", turns=3, prompt_tokens=4, new_tokens=3)
CONTEXT = MeasurementContext("local-test", "torch-eager", "2", "fp32", 1)
FASTV = {"prune_layer": 2, "compression": "fastv", "compression_factor": 4}
AXES: list[dict[str, Any]] = [
    {"tiling": "grid", "tiles": 4}, {"tiling": "any-resolution", "tiles": 3}, {"tiling": "s2", "tiles": 2},
    {"second_encoder": "conv-micro", "fusion": "channel"}, {"second_encoder": "conv-micro", "fusion": "sequence"},
    {"encoder_depth": 1}, {"compression": "visionzip", "compression_factor": 4},
    {"compression": "prumerge", "compression_factor": 4}, {"compression": "tome-blocks", "compression_factor": 2},
    FASTV, {"projector": "cross-attention"}, {"lm_ffn": 64}, {"lm_heads": 2}, {"lm_experts": 4},
    {"lm_weights": "int8"}, {"lm_weights": "int4"}, {"kv_cache": "bf16"}, {"kv_cache": "int8"},
    {"attention": "eager"}, {"temporal_factor": 2},
]  # fmt: skip


def changed(**changes: Any) -> Candidate:
    return Candidate.model_validate({**BASELINE, "resolution": 64, **changes})


def blocks(candidate: Candidate, workload: Workload = ONE) -> set[BlockSpec]:
    return set(needed(candidate, workload))


def composed(candidate: Candidate, truth: Any, workload: Workload = ONE) -> Any:
    timings = {
        block.key: BlockTiming({}, (truth(block),), 1.0, "2026-01-01", noisy=False)
        for block in needed(candidate, workload)
    }
    return compose(candidate, workload, timings)


@pytest.mark.parametrize("changes", AXES, ids=str)
def test_every_axis_is_composed_of_blocks_that_run_measured_end_to_end_and_estimated(changes: dict[str, Any]) -> None:
    candidate, workload = changed(**changes), CLIP if "temporal_factor" in changes else ONE
    backend = EagerBackend()
    with torch.inference_mode():
        for block in needed(candidate, workload):
            if block.length <= 256 and block.depth <= 6:
                job = backend.job(block)
                job.run()
                job.restore()
                job.run()
            assert block_work(block).activation_bytes > 0
    found = measure_requests({"": candidate}, workload, CONTEXT, rounds=1)[""]
    assert 0 < found.latency.ttft_ms < found.latency.latency_ms
    assert estimate(candidate, workload, load("raspberry-pi-5-8gb")).latency_ms > 0
    if "prune_layer" in changes:
        assert amounts(candidate, workload).dropped == 12
    if candidate.projector == "cross-attention":
        assert amounts(candidate, workload).prompt == workload.prompt_tokens


def test_tiles_and_frames_are_a_batch_of_the_same_encoder() -> None:
    tiled = {block for block in blocks(changed(tiling="grid", tiles=4)) if block.kind in ("vision", "projector")}
    assert tiled == {
        b for b in blocks(changed(), Workload(**ONE.model_dump() | {"images": 5})) if b.kind in ("vision", "projector")
    }
    clip = {block for block in blocks(changed(), CLIP) if block.kind == "vision"}
    assert clip < tiled
    merged = next(block for block in blocks(changed(temporal_factor=2), CLIP) if block.kind == "projector")
    assert merged.batch == 3 and merged.axes == (("temporal_factor", 2),)


def test_two_encoders_are_measured_one_by_one_not_pair_by_pair() -> None:
    names = ["vit-micro", "conv-micro"]
    pairs = [changed(encoder=a, second_encoder=b, fusion="channel") for a in names for b in names]
    found = {block for pair in pairs for block in blocks(pair) if block.kind == "vision"}
    assert {block.encoder for block in found} == set(names) and len(found) == 2


def test_fastv_is_some_layers_on_the_whole_sequence_and_the_rest_on_the_shortened_one() -> None:
    candidate = changed(**FASTV, lm_depth=5)
    found = amounts(candidate, ONE)

    def truth(block: BlockSpec) -> float:
        if block.kind == "decoder_prefill":
            return 7.0 + block.depth * (2.0 + 0.5 * block.length)
        return 3.0 + block.depth * block.length * 0.25 if block.kind == "decoder_decode" else 0.0

    latency = composed(candidate, truth)
    long, short = found.prompt, found.prompt - found.dropped
    assert latency.prefill_ms == pytest.approx(7.0 + 2 * (2.0 + 0.5 * long) + 3 * (2.0 + 0.5 * short))
    late = found.context - found.dropped
    assert latency.tpot_ms == pytest.approx(3.0 + 0.25 * (2 * found.context + 3 * late))


def test_a_cut_encoder_is_on_the_line_through_two_depths() -> None:
    candidate = changed(encoder="clip-vitb16", encoder_depth=9)

    def truth(block: BlockSpec) -> float:
        return 1.0 + 2.0 * int(dict(block.axes).get("encoder_depth", 12)) if block.kind == "vision" else 1.0

    assert composed(candidate, truth).vision_ms == pytest.approx(1.0 + 2.0 * 9)
    deeper = {block for depth in (6, 9, 0) for block in blocks(changed(encoder="clip-vitb16", encoder_depth=depth))}
    assert len({block for block in deeper if block.kind == "vision"}) == 2


def test_what_is_composed_grows_with_the_sum_of_the_choices() -> None:
    """Depth of encoder and decoder, tokens dropped, layer of dropping: 3 x 6 x 3 x 2 candidates."""
    every = [
        changed(encoder_depth=cut, lm_depth=depth, **FASTV | {"compression_factor": factor, "prune_layer": layer})
        for cut in (1, 0) for depth in range(3, 7) for factor in (2, 4, 8) for layer in (1, 2)
    ]  # fmt: skip
    kinds = [block.kind for block in {block for candidate in every for block in blocks(candidate)}]
    assert kinds.count("vision") == 2 and kinds.count("projector") == 1 and len(kinds) < 30


def test_earlier_turns_are_in_the_cache_of_the_last_one() -> None:
    candidate = changed()
    found = amounts(candidate, TURNS)
    assert found.past == 2 * (found.prompt + TURNS.new_tokens)
    prefill = [block for _, block in terms(candidate, TURNS)["prefill_ms"]]
    assert {block.past for block in prefill} == {16, 256}
    assert measure_requests({"": candidate}, TURNS, CONTEXT, rounds=2)[""].latency.prefill_ms > 0


def test_what_is_not_composed_says_so_in_one_line() -> None:
    for changes, runtime in (({"lm_weights": "int8"}, "onnxruntime"), ({"tiling": "s2", "tiles": 2}, "openvino")):
        with pytest.raises(NotMeasuredError, match=rf"runtime {runtime} does not run .*{next(iter(changes))}"):
            needed(changed(**changes), ONE, runtime)
    with pytest.raises(NotMeasuredError, match="take a workload of one turn"):
        needed(changed(**FASTV), TURNS)
    long = Workload(name="long", images=600, prompt_tokens=4, new_tokens=3)
    with pytest.raises(NotMeasuredError, match="at most 8192 tokens are measured, but this one has 9604"):
        needed(changed(), long)
    assert not has_blocks(changed(), long)


def test_a_timing_with_axes_comes_back_from_a_device_as_it_was_asked_for() -> None:
    block = next(block for block in needed(changed(lm_weights="int8"), ONE) if block.axes)
    record = json.loads(json.dumps(asdict(BlockTiming(asdict(block), (1.0,), 1.0, "2026-01-01", noisy=False))))
    request = Request(load("raspberry-pi-5-8gb"), blocks=(block,))
    message = {"kind": "timings", "timings": {block.key: record}}
    assert next(check_messages(iter([json.dumps(message)]), "here", request)) == message
    assert BlockSpec(**record["block"]) == block
