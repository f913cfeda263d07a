"""The closed form agrees with networks that are really built and counted."""

from __future__ import annotations

import random

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import nas.workload
import search_spaces
from nas.cost import cost
from nas.model import build

WORKLOAD = nas.workload.load("vqa-short")
GENERATOR = random.Random(5)
CANDIDATES = [search_spaces.load("micro").sample(GENERATOR) for _ in range(12)]
CANDIDATES += [search_spaces.load("pocket").sample(GENERATOR) for _ in range(3)]


@pytest.mark.parametrize("candidate", CANDIDATES, ids=str)
def test_parameters_are_exact(candidate: search_spaces.Candidate) -> None:
    model = build(candidate, weights="random")
    assert cost(candidate, WORKLOAD).params == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("candidate", CANDIDATES, ids=str)
def test_flops_agree_with_the_counter_within_one_percent(candidate: search_spaces.Candidate) -> None:
    model = build(candidate, weights="random")
    images = torch.zeros(1, 3, candidate.resolution, candidate.resolution)
    tokens = model.visual_tokens + WORKLOAD.prompt_tokens
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.encode_images(images)
        embedded = torch.zeros(1, tokens, model.language_spec.hidden)
        model(inputs_embeds=embedded, use_cache=False, logits_to_keep=1)
    assert cost(candidate, WORKLOAD).flops == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("candidate", CANDIDATES[:6], ids=str)
def test_a_decode_step_and_its_cache_cost_what_is_counted(candidate: search_spaces.Candidate) -> None:
    """The last new token attends to the full context: image, prompt and new tokens."""
    model = build(candidate, weights="random")
    hidden, bill = model.language_spec.hidden, cost(candidate, WORKLOAD)
    before = bill.visual_tokens + WORKLOAD.prompt_tokens + WORKLOAD.new_tokens - 1
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        cache = model(inputs_embeds=torch.zeros(1, before, hidden), use_cache=True).past_key_values
        with FlopCounterMode(display=False) as counter:
            model(inputs_embeds=torch.zeros(1, 1, hidden), past_key_values=cache, use_cache=True)
    assert counter.get_total_flops() == bill.decode_flops
    assert sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers) == bill.kv_bytes


def test_cost_grows_with_depth_and_never_with_compression() -> None:
    space = search_spaces.load("pocket")
    for candidate in space.candidates:
        deeper = candidate.model_copy(update={"lm_depth": candidate.lm_depth + 2})
        if deeper in space:
            assert cost(deeper, WORKLOAD).memory_bytes > cost(candidate, WORKLOAD).memory_bytes
            assert cost(deeper, WORKLOAD).flops > cost(candidate, WORKLOAD).flops
    pooled = [space.decode(space.baseline | {"compression": "avgpool", "compression_factor": f}) for f in (4, 16)]
    assert cost(pooled[0], WORKLOAD).prefill_flops > cost(pooled[1], WORKLOAD).prefill_flops


def test_a_batch_multiplies_compute_and_cache_but_not_weights() -> None:
    candidate = CANDIDATES[0]
    one, four = (cost(candidate, WORKLOAD.model_copy(update={"batch": size})) for size in (1, 4))
    assert (four.flops, four.kv_bytes, four.weight_bytes) == (4 * one.flops, 4 * one.kv_bytes, one.weight_bytes)
