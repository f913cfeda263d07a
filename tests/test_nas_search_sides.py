"""The front by the two sides of a design is the front of every design, weighed one by one."""

from __future__ import annotations

from typing import Any

import pytest

from nas.config import SearchConfig
from nas.search.exact import weigh
from nas.search.problem import Problem, define
from nas.search.sides import Sides, applies, front_of_sides

DEVICE = "raspberry-pi-5-8gb"


def problem(space: str, *constraints: str, **changes: Any) -> Problem:
    fields = {"space": space, "devices": [DEVICE], "constraints": list(constraints), **changes}
    return define(SearchConfig.model_validate(fields))


@pytest.mark.parametrize(
    ("space", "constraints", "objectives"),
    [
        ("micro", [], ["quality", "latency_ms"]),
        ("micro", ["latency_ms <= 60% of baseline", "memory_gib <= 90% of baseline"], ["quality", "latency_ms"]),
        ("micro", [], ["quality", "ttft_ms", "memory_gib"]),
        ("pocket", ["latency_ms <= 40% of baseline", "quality >= 90% of baseline"], ["quality", "latency_ms"]),
    ],
)
def test_the_front_of_sides_is_that_of_every_candidate(
    space: str, constraints: list[str], objectives: list[str]
) -> None:
    asked = problem(space, *constraints, objectives=objectives)
    weighed = weigh(asked, asked.space.candidates)
    found = front_of_sides(asked)
    assert {one.key for one in found} == {weighed.candidates[place].key for place in weighed.front}


def test_designs_without_a_latency_are_left_out_and_their_sides_with_others_are_not() -> None:
    few = {
        "encoder": ["siglip-vitb16", "dinov2-vits14", "mobileclip-s0"], "encoder_depth": [9, 0],
        "resolution": [224, 256, 512], "tiling": ["none"], "tiles": [1], "projector": ["linear", "mlp", "ldp-v2"],
        "compression": ["none", "pixel-shuffle", "fastv"], "compression_factor": [1, 4], "lm_depth": [12, 20, 30],
        "lm": ["smollm2-135m", "smolvlm-360m"], "prune_layer": [0, 2], "lm_weights": ["native", "int8"],
    }  # fmt: skip
    asked = problem("edge", "memory_gib <= 0.9", overrides=few)
    weighed = weigh(asked, asked.space.candidates)
    assert 0 < len(weighed.candidates) < asked.space.size
    assert {one.key for one in front_of_sides(asked)} == {weighed.candidates[place].key for place in weighed.front}


def test_every_design_is_one_pair_of_sides() -> None:
    space = problem("micro").space
    sides = Sides.of(problem("micro"))
    pairs = [(seeing, int(one)) for seeing, languages in sides.partners() for one in languages]
    assert sorted(sides.number(*pair) for pair in pairs) == list(range(space.size))


def test_it_is_not_used_where_its_form_does_not_hold() -> None:
    assert applies(problem("micro")) and applies(problem("laptop")) is False
    assert not applies(problem("micro", anchors=6))
    assert not applies(problem("edge"))
