"""The front by the two sides of a design is the front of every design, weighed one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nas.config import SearchConfig
from nas.search.exact import Weighed, weigh
from nas.search.problem import Problem, define
from nas.search.side_tables import SideTables
from nas.search.sides import applies, front_of_sides

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
    asked = problem(space, *constraints, **changes)
    weighed = weigh(asked, asked.space.candidates)
    found = front_of_sides(asked)
    assert found is not None and len(weighed.front) > 1
    assert reached(asked, weigh(asked, found)) == reached(asked, weighed)


def test_every_design_is_one_pair_of_sides() -> None:
    asked = problem("edge", overrides=FEW_OF_EDGE)
    tables = SideTables(asked)
    pairs = [(a, b) for seeing, language in tables.groups() for a in seeing.place for b in language.place]
    assert sorted(one.key for one in tables.made(np.array(pairs))) == sorted(one.key for one in asked.space.candidates)


def test_where_even_the_sides_are_too_many_it_says_so() -> None:
    assert front_of_sides(problem("full")) is None


def test_it_is_not_used_where_its_form_does_not_hold() -> None:
    assert applies(problem("edge"))
    assert not applies(problem("micro", anchors=6))
    assert not applies(problem("micro", "latency_ms >= 5"))
    assert not applies(problem("micro", devices=["local"]))
