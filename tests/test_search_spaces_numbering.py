"""Counting, drawing and completing without enumeration agree with walking every combination."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import search_spaces
from search_spaces import SearchSpace, SpaceError
from search_spaces.numbering import Numbering
from search_spaces.rules import ORDER, Rule
from search_spaces.sizes import Value

DOMAINS: dict[str, list[Value]] = {
    "encoder": ["conv-micro", "vit-micro", "dinov2-vits14"],
    "encoder_depth": [0, 1, 2],
    "resolution": [64, 112, 224],
    "tiling": ["none", "grid", "s2"],
    "tiles": [1, 4],
    "compression_factor": [1, 3, 4],
    "lm_depth": [2, 6],
    "attention": ["sdpa", "eager"],
}
NUMBERS = ["encoder_depth", "resolution", "tiles", "compression_factor", "lm_depth", "grid_side", "block_side"]


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Any rule over DOMAINS."""

    def some(axes: list[str]) -> dict[str, list[Value]]:
        axis = draw(st.sampled_from(axes))
        return {axis: draw(st.lists(st.sampled_from(DOMAINS[axis]), min_size=1, unique=True))}

    every = list(DOMAINS)
    fields: dict[str, Any] = {"name": "drawn"}
    if draw(st.booleans()):
        fields["when"] = some(every)
    if draw(st.booleans()):
        fields["unless"] = some(every)
    kind = draw(st.sampled_from(["require", "forbid", "divides", "at_most"]))
    sizes = st.lists(st.sampled_from(NUMBERS), min_size=2, max_size=2)
    fields[kind] = some(every) if kind in ("require", "forbid") else draw(sizes)
    return Rule.model_validate(fields)


def walked(drawn: list[Rule]) -> list[tuple[int, ...]]:
    """Every combination that keeps the rules, in axis order."""
    found = []
    for codes in itertools.product(*(range(len(values)) for values in DOMAINS.values())):
        values = {axis: DOMAINS[axis][code] for axis, code in zip(DOMAINS, codes, strict=True)}
        if all(rule.holds(values) for rule in drawn):
            found.append(codes)
    return found


@given(st.lists(rules(), max_size=4))
@settings(max_examples=25, deadline=None)
def test_numbers_are_those_of_a_walk_in_axis_order(drawn: list[Rule]) -> None:
    numbering = Numbering(DOMAINS, drawn)
    every = walked(drawn)
    assert numbering.size == len(every)
    assert list(map(tuple, numbering.codes(range(len(every))).tolist())) == every
    for length in range(len(DOMAINS)):
        for start in {codes[:length] for codes in every[::7]}:
            assert set(numbering.allowed(start)) == {codes[length] for codes in every if codes[:length] == start}


def test_counts_beyond_64_bits_are_exact() -> None:
    domains: dict[str, list[Value]] = {axis: list(range(12)) for axis in ORDER}
    apart = Rule.model_validate({"name": "x", "when": {"encoder": [7]}, "forbid": {"lm_depth": [9]}})
    numbering = Numbering(domains, [apart])
    assert numbering.size == 12 ** len(ORDER) - 12 ** (len(ORDER) - 2) > 2**64
    each = 12 ** (len(ORDER) - 1)  # combinations with the first value of the first axis
    found = numbering.codes([0, each - 1, each, numbering.size - 1]).tolist()
    assert found == [[0] * len(ORDER), [0] + [11] * (len(ORDER) - 1), [1] + [0] * (len(ORDER) - 1), [11] * len(ORDER)]


@pytest.fixture(scope="module")
def vast(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    """micro at a thousand resolutions."""
    fields = search_spaces.load("micro").model_dump(mode="json")
    fields["axes"]["resolution"] = {"low": 16, "high": 16000, "step": 16}
    fields["axes"]["compression_factor"] = [side * side for side in range(1, 25)]
    path: Path = tmp_path_factory.mktemp("space") / "vast.yaml"
    path.write_text(yaml.safe_dump(fields | {"name": "vast"}))
    return search_spaces.load(str(path))


def test_a_space_too_large_to_enumerate_says_so_and_is_drawn_from(vast: SearchSpace) -> None:
    assert vast.size > 200_000 and not vast.enumerable
    with pytest.raises(SpaceError, match=r"vast has [\d,]+ candidates, more than the 200,000 that are enumerated"):
        _ = vast.candidates
    drawn = vast.draw(300, random.Random(1))
    assert len({candidate.key for candidate in drawn}) == 300
    assert all(candidate in vast and vast.explain(candidate) is None for candidate in drawn)
    assert drawn == vast.draw(300, random.Random(1))
    assert all(near in vast for near in vast.neighbours(drawn[0]))
    assert "of which a fixed draw of 20,000 is looked at" in vast.extent


def test_drawing_more_than_there_are_gives_every_candidate_once() -> None:
    micro = search_spaces.load("micro")
    assert {c.key for c in micro.draw(10_000, random.Random(0))} == {c.key for c in micro.candidates}
    assert micro.survey == micro.candidates


def test_draws_are_uniform() -> None:
    """Chi-squared over the 468 candidates of micro: 20 draws each, 467 degrees of freedom, mean 467, deviation 31."""
    micro, generator = search_spaces.load("micro"), random.Random(3)
    counts = dict.fromkeys((candidate.key for candidate in micro.candidates), 0)
    for number in (number for _ in range(20 * 468) for number in micro.draw_numbers(1, generator)):
        counts[micro.candidates[number].key] += 1
    statistic = sum((count - 20) ** 2 / 20 for count in counts.values())
    assert 350 < statistic < 590


def test_the_nearest_of_a_survey_is_the_combination_itself_where_it_was_drawn(vast: SearchSpace) -> None:
    survey = vast.survey
    assert len(survey) == 20_000
    for candidate in survey[:20]:
        assert vast.surveyed(candidate.to_dict()) == candidate
    keys = {candidate.key for candidate in survey}
    for candidate in vast.draw(20, random.Random(5)):
        near = vast.surveyed(candidate.to_dict())
        assert near.key in keys
        names = ("encoder", "projector", "compression", "lm")
        assert sum(getattr(near, name) != getattr(candidate, name) for name in names) <= 1


def test_a_rule_over_too_many_values_is_refused() -> None:
    domains: dict[str, list[Value]] = {axis: list(range(1, 1001)) for axis in ("tiles", "lm_depth", "lm_ffn")}
    rule = Rule.model_validate({"name": "x", "forbid": {axis: [1] for axis in domains}})
    with pytest.raises(SpaceError, match="rules join too many values of tiles, lm_depth, lm_ffn"):
        Numbering(domains, [rule])


def test_every_way_to_go_on_is_a_valid_combination_and_they_are_counted_before_they_are_held() -> None:
    space = search_spaces.load("micro")
    numbering, count = space.numbering, len(space.domains)
    begun = numbering.ways_on(np.zeros((1, 0), dtype=np.int16), 11, 10_000)
    assert len({tuple(row) for row in begun.tolist()}) == len(begun) < space.size
    ended = numbering.ways_on(begun, count, 10_000)
    assert sorted(ended.tolist()) == sorted(numbering.codes(range(space.size)).tolist())
    with pytest.raises(SpaceError, match="more than 100 ways"):
        numbering.ways_on(begun, count, 100)
