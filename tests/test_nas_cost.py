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
