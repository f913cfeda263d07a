"""The front by the two sides of a design is the front of every design, weighed one by one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import search_spaces
from nas.config import SearchConfig
from nas.search.exact import Weighed, weigh
from nas.search.problem import Problem, define
from nas.search.side_tables import SideTables
from nas.search.sides import front_of_sides

DEVICE = "raspberry-pi-5-8gb"
FEW_OF_EDGE = {
    "encoder": ["siglip-vitb16", "dinov2-vits14", "mobileclip-s0"], "encoder_depth": [9, 0],
    "resolution": [224, 256, 512], "tiling": ["none", "grid"], "tiles": [1, 4], "lm_weights": ["native", "int8"],
    "projector": ["linear", "ldp-v2", "perceiver"], "compression_factor": [1, 4],
    "compression": ["none", "pixel-shuffle", "fastv", "visionzip", "tome-blocks"],
    "lm_depth": [12, 30], "lm": ["smollm2-135m", "smolvlm-360m"], "prune_layer": [0, 2],
}  # fmt: skip
FEW_OF_FULL: dict[str, Any] = {
    "encoder": ["clip-vitb16", "efficientnet-lite0"], "encoder_depth": [0], "resolution": [224],
    "second_encoder": ["none", "dinov2-vits14", "dinov2-vitb14"], "fusion": ["none", "channel", "sequence"],
    "tiling": ["none", "s2"], "tiles": [1, 2], "temporal_factor": [1, 4], "projector": ["mlp", "cross-attention"],
    "compression": ["none", "avgpool", "fastv"], "compression_factor": [1, 4], "lm": ["smollm2-135m", "mamba-130m"],
    "lm_depth": [6, 24], "prune_layer": [0, 4], "lm_ffn": [0, 512], "lm_heads": [0, 3], "lm_experts": [0],
    "lm_weights": ["native", "int4"], "kv_cache": ["native", "int8"], "attention": ["sdpa"], "lm_layers": ["uniform"],
}  # fmt: skip


def problem(space: str, *constraints: str, **changes: Any) -> Problem:
    """With the closed-form prior, also where the shipped benchmark knows the encoders."""
    found = asked_of(space, *constraints, **changes)
    found.__dict__["benchmark"] = None
    return found


def asked_of(space: str, *constraints: str, **changes: Any) -> Problem:
    fields = {"space": space, "devices": [DEVICE], "constraints": list(constraints), **changes}
    return define(SearchConfig.model_validate(fields))


def reached(asked: Problem, weighed: Weighed) -> list[list[float]]:
    """What the front has in every objective; designs that are alike count once."""
    return np.unique(weighed.gains[weighed.front], axis=0).tolist()


@pytest.mark.parametrize(
    ("space", "constraints", "changes"),
    [
        ("micro", [], {}),
        ("micro", ["latency_ms <= 60% of baseline", "memory_gib <= 90% of baseline"], {}),
        ("micro", [], {"objectives": ["quality", "ttft_ms", "memory_gib"]}),
        (
            "pocket",
            ["latency_ms <= 80% of baseline", "quality >= 0.2"],
            {"objectives": ["quality", "tpot_ms", "params"]},
        ),
        ("edge", ["memory_gib <= 0.9", "vision_ms <= 900"], {"overrides": FEW_OF_EDGE}),
        ("edge", [], {"overrides": FEW_OF_EDGE, "devices": [DEVICE, "jetson-orin-nano-8gb"]}),
        ("full", ["params <= 400000000"], {"overrides": FEW_OF_FULL, "workload": "video"}),
    ],
)
def test_the_front_of_sides_is_that_of_every_candidate(
    space: str, constraints: list[str], changes: dict[str, Any]
) -> None:
    check(problem(space, *constraints, **changes))


@pytest.mark.parametrize("seed", range(8))
def test_the_front_of_sides_of_random_spaces_is_that_of_every_candidate(seed: int) -> None:
    check(random_problem(random.Random(seed)))


def check(asked: Problem) -> None:
    weighed = weigh(asked, asked.space.candidates)
    found, why_not = front_of_sides(asked)
    assert found is not None and not why_not and len(weighed.front) > 1
    assert reached(asked, weigh(asked, found)) == reached(asked, weighed)


def random_problem(generator: random.Random) -> Problem:
    """Some values of every axis of a large space, with random objectives, limits and workload."""
    name = generator.choice(["full", "laptop", "edge"])
    objectives = ["quality", *generator.sample(["latency_ms", "ttft_ms", "tpot_ms", "memory_gib", "params"], 2)]
    limits = [f"{metric} <= {generator.randrange(60, 200)}% of baseline" for metric in objectives[1:]]
    changes = {
        "objectives": objectives[: generator.choice([2, 3])], "devices": [generator.choice([DEVICE, "rtx-4090"])],
        "workload": generator.choice(["vqa-short", "video", "multi-image", "long-chat"]),
    }  # fmt: skip
    whole = search_spaces.load(name)
    axes = {axis: [value] for axis, value in whole.baseline_candidate.to_dict().items() if axis in whole.axes}
    size = 1
    while size < 300:  # one more value of some axis, as long as they are few to weigh
        axis = generator.choice(list(axes))
        more = {**axes, axis: list(dict.fromkeys([*axes[axis], generator.choice(whole.axes[axis])]))}
        size = search_spaces.load(name, more).size
        axes = more if size < 3000 else axes
    return problem(name, *generator.sample(limits, 1), overrides=axes, **changes)


def test_every_design_is_one_pair_of_sides() -> None:
    tables = SideTables(problem("edge", overrides=FEW_OF_EDGE))
    pairs = [
        tables.joined(seeing.codes[[a]], language.codes[[b]])
        for seeing, language in tables.groups() for a in range(len(seeing)) for b in range(len(language))
    ]  # fmt: skip
    made = tables.made(np.vstack(pairs))
    assert sorted(one.key for one in made) == sorted(one.key for one in tables.space.candidates)


def test_where_the_sides_or_the_seconds_are_too_many_it_says_so() -> None:
    assert front_of_sides(problem("full")) == (None, "one decoder has more than 1,000,000 seeing sides")
    found, why_not = front_of_sides(problem("edge", overrides=FEW_OF_EDGE), most_s=5, clock=iter((0.0, 6.0)).__next__)
    assert found is None and why_not == "it would take more than 5 s"


def test_it_is_not_used_where_its_form_does_not_hold() -> None:
    for asked, reason in (
        (problem("micro", anchors=6), "anchors"),
        (asked_of("micro"), "benchmark"),
        (problem("micro", "latency_ms >= 5"), "'latency_ms >= 5'"),
        (problem("micro", devices=["local"]), "measured device"),
        (problem("micro", runtime="onnxruntime"), "onnxruntime"),
    ):
        found, why_not = front_of_sides(asked)
        assert found is None and reason in why_not
