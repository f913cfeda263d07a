"""Any design of the space `full`, with its parts made small: it builds, runs, and costs what is counted."""

from __future__ import annotations

import random

import pytest
import torch

import nas.workload
import search_spaces
from nas.cost import cost
from nas.model import build
from nas.quality.score import probe_batch, score
from search_spaces import Candidate, SearchSpace

WORKLOAD = nas.workload.load("vqa-short")
SMALL = {
    "encoder": ["vit-micro", "conv-micro"],
    "encoder_depth": [0, 1],
    "resolution": [64, 96],
    "second_encoder": ["none", "vit-micro", "conv-micro"],
    "tiles": [1, 2, 3],
    "compression_factor": [1, 2, 4, 9, 16],
    "lm": ["llama-micro"],
    "lm_depth": [1, 2, 3, 6],
    "prune_layer": [0, 1, 2],
    "lm_ffn": [0, 64],
    "lm_heads": [0, 2],
    "lm_experts": [0, 2, 4],
}
PROXIES = ("params", "flops", "visual-tokens", "depth-width", "effective-rank", "compression-cka", "synflow")


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return search_spaces.load("full", SMALL)


def design(space: SearchSpace, seed: int) -> Candidate:
    """One of every kind in turn: uniform draws would nearly all be tiled and fused."""
    generator = random.Random(seed)
    kind = seed % 4
    while True:
        (one,) = space.draw(1, generator)
        plain = one.tiling == "none" and one.temporal_factor == 1
        if (kind == 0) == (plain and one.second_encoder == "none") and (kind != 1 or plain):
            return one


@pytest.mark.parametrize("seed", range(36))
def test_any_design_builds_runs_and_has_the_parameters_and_tokens_of_the_closed_form(
    space: SearchSpace, seed: int
) -> None:
    candidate = design(space, seed)
    model = build(candidate, weights="random")
    if candidate.lm_weights == "native":
        assert model.num_parameters() == cost(candidate, WORKLOAD).params, candidate
    batch = probe_batch(model, 0)
    with torch.inference_mode():
        visual = model.encode_images(batch.pixel_values)
        logits = model(input_ids=batch.input_ids, pixel_values=batch.pixel_values).logits
    assert torch.isfinite(logits).all(), candidate
    assert logits.shape[-1] == model.language_spec.vocab
    assert visual.shape[1:] == (cost(candidate, WORKLOAD).visual_tokens, model.language_spec.hidden)


@pytest.mark.parametrize("seed", range(36))
def test_flops_of_any_design_are_those_that_are_counted(space: SearchSpace, seed: int) -> None:
    """With matrices as wide as they were: torch's counter knows no formula for narrow ones."""
    candidate = design(space, seed)
    model = build(candidate, weights="random", quantised=False)
    batch = probe_batch(model, 0)
    prompt = batch.input_ids.shape[1] - (0 if candidate.crosses else cost(candidate, WORKLOAD).visual_tokens)
    expected = cost(candidate, WORKLOAD.model_copy(update={"prompt_tokens": prompt})).flops
    assert score(model, batch, ("flops",))["flops"].value == pytest.approx(expected, rel=0.01), candidate


@pytest.mark.parametrize("seed", range(100, 112))
def test_proxies_score_any_design_or_say_why_not(space: SearchSpace, seed: int) -> None:
    candidate = design(space, seed)
    model = build(candidate, weights="random", quantised=False)
    before = [tensor.clone() for tensor in model.state_dict().values()]
    found = score(model, probe_batch(model, 0), PROXIES)
    unscored = {name: one.reason for name, one in found.items() if one.value is None}
    expected = {"synflow"} if candidate.lm_experts else set()
    assert set(unscored) == expected, (candidate, unscored)
    assert all("ProxyError: no positive form is known of experts" in str(reason) for reason in unscored.values())
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True)), candidate
