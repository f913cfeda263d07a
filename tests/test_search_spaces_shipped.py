"""The baselines of the shipped spaces are published models, and what is drawn from the large ones can be built."""

from __future__ import annotations

import random

import pytest

import nas.workload
import search_spaces
from nas.cost import cost
from search_spaces.rules import buildable

LARGE = ("edge", "video-edge", "audio-edge", "laptop", "full")


@pytest.mark.parametrize(("name", "tokens"), [("edge", 64), ("video-edge", 64), ("laptop", 81), ("full", 49)])
def test_the_baseline_reads_as_many_visual_tokens_as_the_published_model(name: str, tokens: int) -> None:
    """One view; the card of SmolVLM-256M says 64 and nanoVLM's configuration 49; 81 is from memory."""
    baseline = search_spaces.load(name).baseline_candidate
    assert cost(baseline, nas.workload.load("vqa-short")).visual_tokens == tokens


@pytest.mark.parametrize("name", LARGE)
def test_what_is_drawn_is_buildable_and_has_a_cost(name: str) -> None:
    space = search_spaces.load(name)
    workload = nas.workload.of_space(space)
    assert not space.enumerable
    for candidate in space.draw(200, random.Random(3)):
        assert buildable(candidate) is None
        bill = cost(candidate, workload)
        assert min(bill.encoder_params, bill.lm_body_params, bill.flops, bill.decode_flops, bill.visual_tokens) > 0


@pytest.mark.parametrize(("name", "low", "high"), [("edge", 0.8e8, 1.25e9), ("laptop", 0.8e9, 4e9)])
def test_sizes_are_those_that_the_description_says(name: str, low: float, high: float) -> None:
    workload = nas.workload.load("vqa-short")
    drawn = search_spaces.load(name).draw(500, random.Random(4))
    assert all(low <= cost(candidate, workload).params <= high for candidate in drawn)
