"""The cost of many candidates at once is that of each, number by number."""

from __future__ import annotations

import random

import numpy as np
import pytest

import nas.workload
import search_spaces
from nas.cost import cost
from nas.cost_many import cost_of_candidates, cost_of_codes
from nas.workload import Workload
from search_spaces import SearchSpace

SHORT = nas.workload.load("vqa-short")
HEAVY = Workload(name="heavy", images=3, prompt_tokens=1500, new_tokens=700, batch=2)  # beyond sliding windows
LOOP = Workload(name="loop", frames=5, turns=3, prompt_tokens=9, new_tokens=4)
WIDE = {
    "encoder": ["siglip-vitb16", "dinov2-vits14", "efficientnet-lite0"],
    "encoder_depth": [0, 3, 9],
    "resolution": [112, 224, 448],
    "second_encoder": ["none", "dinov2-vits14"],
    "fusion": ["none", "channel", "sequence"],
    "tiling": ["none", "grid", "any-resolution", "s2"],
    "tiles": [1, 2, 4],
    "temporal_factor": [1, 2],
    "projector": ["linear", "mlp", "mlp-3", "ldp", "ldp-v2", "deco", "c-abstractor", "d-abstractor", "q-former",
                  "perceiver", "token-packer", "pixel-shuffle", "cross-attention"],
    "compression": ["none", "avgpool", "pixel-shuffle", "queries", "tome", "tome-blocks", "visionzip", "prumerge",
                    "fastv"],
    "compression_factor": [1, 2, 4, 16],
    "prune_layer": [0, 1, 2],
    "lm_ffn": [0, 512],
    "lm_heads": [0, 4, 6],
    "lm_experts": [0, 4],
    "lm_weights": ["native", "int8", "int4"],
    "kv_cache": ["native", "bf16", "int8"],
}  # fmt: skip


def wide() -> SearchSpace:
    """Every optional axis, over language models with windows, states, experts and one kind of layer."""
    lms = ["smollm2-135m", "gemma-3-270m", "lfm2-350m", "mamba2-130m", "falcon-h1-0.5b", "olmoe-1b-7b"]
    return search_spaces.load("pocket", {**WIDE, "lm": lms, "lm_depth": [1, 2, 5, 12]})


@pytest.mark.parametrize("workload", [SHORT, HEAVY, LOOP], ids=lambda workload: workload.name)
@pytest.mark.parametrize(
    "space", [*map(search_spaces.load, ("micro", "pocket")), wide()], ids=["micro", "pocket", "wide"]
)
def test_columns_equal_the_scalar_cost(space: SearchSpace, workload: Workload) -> None:
    numbers = space.draw_numbers(400, random.Random(3))
    candidates = space.draw(400, random.Random(3))
    by_code = cost_of_codes(space, space.numbering.codes(numbers), workload)
    by_candidate = cost_of_candidates(candidates, workload)
    for row, candidate in enumerate(candidates):
        alone = cost(candidate, workload)
        assert by_code.row(row) == by_candidate.row(row) == alone
        assert (by_code.params[row], by_code.flops[row]) == (alone.params, alone.flops)
        assert by_code.memory_gib[row] == alone.memory_gib


def test_rows_repeat_and_no_rows_are_no_cost() -> None:
    space = search_spaces.load("micro")
    codes = space.numbering.codes([5, 5, 0])
    found = cost_of_codes(space, codes, SHORT)
    assert found.row(0) == found.row(1) != found.row(2)
    assert len(cost_of_codes(space, np.empty((0, codes.shape[1]), dtype=np.int16), SHORT)) == 0
    assert len(cost_of_candidates([], SHORT)) == 0
