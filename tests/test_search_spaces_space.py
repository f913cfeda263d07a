"""A space draws every candidate that keeps its rules, and nothing else."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import search_spaces
from search_spaces import Candidate, SearchSpace, SpaceError
from search_spaces.candidate import OPTIONAL
from search_spaces.rules import Rule, buildable

SPACES = {name: search_spaces.load(name) for name in search_spaces.names()}
MICRO = SPACES["micro"]


@st.composite
def drawn(draw: st.DrawFn) -> tuple[SearchSpace, dict[str, str | int]]:
    """A space and any combination of its axis values, valid or not."""
    space = SPACES[draw(st.sampled_from(sorted(SPACES)))]
    return space, {axis: draw(st.sampled_from(values)) for axis, values in space.axes.items()}


def written(folder: Path, **changes: Any) -> str:
    """A user's own space: micro with some keys changed (None removes one)."""
    fields = MICRO.model_dump(mode="json") | changes
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in fields.items() if value is not None}))
    return str(path)


@given(drawn())
def test_any_combination_snaps_to_a_candidate_of_the_space(case: tuple[SearchSpace, dict[str, str | int]]) -> None:
    space, values = case
    candidate = space.decode(values)
    assert candidate in space
    assert space.explain(candidate) is None
    assert buildable(candidate) is None
    assert space.decode(values) == candidate


@given(drawn(), st.randoms(use_true_random=False))
def test_a_valid_candidate_decodes_to_itself(
    case: tuple[SearchSpace, dict[str, str | int]], generator: random.Random
) -> None:
    candidate = case[0].sample(generator)
    fields = {axis: candidate.to_dict()[axis] for axis in case[0].axes}
    assert case[0].decode(fields) == candidate


@given(drawn())
@settings(max_examples=30)
def test_neighbours_are_other_candidates_of_the_space(case: tuple[SearchSpace, dict[str, str | int]]) -> None:
    space, values = case
    candidate = space.decode(values)
    neighbours = space.neighbours(candidate)
    assert neighbours
    assert all(near in space for near in neighbours)
    assert candidate.key not in {near.key for near in neighbours}


def test_enumeration_is_the_full_product_filtered_by_the_rules() -> None:
    found = []
    for combination in itertools.product(*MICRO.axes.values()):
        values = dict(zip(MICRO.axes, combination, strict=True))
        if (values["compression"] == "none") == (values["compression_factor"] == 1):
            candidate = Candidate.model_validate(values)
            if MICRO.explain(candidate) is None:
                found.append(candidate)
    assert {candidate.key for candidate in found} == {candidate.key for candidate in MICRO.candidates}
    assert len(found) == MICRO.size


@pytest.mark.parametrize(
    "space", [space for space in SPACES.values() if space.enumerable], ids=lambda space: space.name
)
def test_candidates_are_unique_and_every_axis_value_is_used(space: SearchSpace) -> None:
    assert len({candidate.key for candidate in space.candidates}) == space.size
    for axis, values in space.axes.items():
        assert {candidate.to_dict()[axis] for candidate in space.candidates} == set(values)


def test_every_drawn_grid_is_tiled_by_whole_blocks() -> None:
    for space in SPACES.values():
        for candidate in space.candidates if space.enumerable else space.draw(100, random.Random(0)):
            spec = search_spaces.catalogue.encoder(candidate.encoder)
            assert candidate.resolution % spec.stride == 0
            assert spec.tokens(candidate.resolution) % candidate.compression_factor == 0


def test_a_space_of_ones_own_needs_no_building_rules(tmp_path: Path) -> None:
    assert search_spaces.load(written(tmp_path, rules=None)).candidates == MICRO.candidates


def test_a_rule_of_ones_own_narrows_the_space(tmp_path: Path) -> None:
    rule = {"name": "vit only at 64", "when": {"encoder": ["vit-micro"]}, "require": {"resolution": [64]}}
    space = search_spaces.load(written(tmp_path, rules=[rule], baseline=MICRO.baseline | {"resolution": 64}))
    assert {c.resolution for c in space.candidates if c.encoder == "vit-micro"} == {64}
    assert 0 < space.size < MICRO.size


def test_overrides_replace_an_axis() -> None:
    space = search_spaces.load("pocket", {"lm_depth": [6, 12]})
    assert {candidate.lm_depth for candidate in space.candidates} == {6, 12}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"axis": {}}, "unknown key 'axis'; did you mean 'axes'?"),
        ({"baseline": None}, "key 'baseline' is missing"),
        ({"baseline": {"encoder": "vit-micro"}}, "baseline: key 'resolution' is missing"),
        ({"baseline": MICRO.baseline | {"encoder": "vit-mirco"}}, "did you mean 'vit-micro'?"),
        ({"baseline": MICRO.baseline | {"resolution": 100}}, "encoder_stride=16"),
        ({"axes": MICRO.axes | {"encoder": ["vit-mcro"]}}, "no encoder named 'vit-mcro'; did you mean 'vit-micro'?"),
        ({"axes": MICRO.axes | {"projector": ["mpl"]}}, "did you mean 'mlp'?"),
        ({"axes": MICRO.axes | {"depth": [1]}}, "no axis named 'depth'"),
        ({"axes": {"encoder": ["vit-micro"]}}, "missing: resolution"),
        ({"axes": MICRO.axes | {"lm_depth": [7]}}, "lm_depth must be in 1..6, but got 7"),
        ({"axes": MICRO.axes | {"lm_depth": {"low": 3, "high": 1}}}, "at least one value"),
        ({"axes": MICRO.axes | {"lm_depth": {"low": 1, "hihg": 4}}}, "{low, high, step}"),
        ({"axes": MICRO.axes | {"resolution": ["64"]}}, "positive integers, but got '64'"),
        ({"axes": MICRO.axes | {"resolution": [64, 64]}}, "none twice"),
        ({"axes": MICRO.axes | {"compression_factor": [8]}}, "no combination of the axes keeps every rule"),
        ({"axes": MICRO.axes | {"resolution": [65]}}, "no combination of the axes keeps every rule"),
        ({"rules": [{"name": "x", "when": {"encodr": ["vit-micro"]}}]}, "did you mean 'encoder'?"),
        ({"rules": [{"name": "x"}]}, "must have one of 'require', 'forbid', 'divides' and 'at_most'"),
        ({"axes": MICRO.axes | {"attention": ["spda"]}}, "no attention named 'spda'; did you mean 'sdpa'?"),
        ({"axes": MICRO.axes | {"second_encoder": ["vit-mcro"]}}, "did you mean 'vit-micro'?"),
        ({"axes": MICRO.axes | {"encoder_depth": [-1]}}, "'encoder_depth' must hold integers from 0, but got -1"),
        ({"axes": MICRO.axes | {"tiles": [0]}}, "'tiles' must hold positive integers, but got 0"),
    ],
)
def test_a_mistake_in_a_space_is_one_line_with_the_rule(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpaceError) as caught:
        search_spaces.load(written(tmp_path, **changes))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_space_names_the_near_miss() -> None:
    with pytest.raises(SpaceError, match="no space named 'pokcet'; did you mean 'pocket'"):
        search_spaces.load("pokcet")


def test_decoding_a_value_that_is_not_on_its_axis_is_refused() -> None:
    with pytest.raises(SpaceError, match="lm_depth must be one of"):
        MICRO.decode(MICRO.baseline | {"lm_depth": 99})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder": "vit-micor"}, "did you mean 'vit-micro'"),
        ({"compression": "pixel-shufle"}, "did you mean 'pixel-shuffle'"),
        ({"resolution": 70}, "encoder_stride=16"),
        ({"projector": "ldp-v2", "compression": "pixel-shuffle"}, "these projectors pool blocks by themselves"),
        ({"compression_factor": 9}, "grid_side=4, block_side=3|block_side=3, grid_side=4"),
        ({"compression_factor": 8}, "square number"),
        ({"lm_depth": 7}, "lm_depth must be in 1..6"),
        ({"lm_layers": "best"}, "lm_layers must be one of uniform"),
        ({"lm_layers": "influence"}, "a choice of layers needs pretrained weights"),
        ({"compression": "none"}, "exactly when compression_factor is 1"),
        ({"fusion": "channel"}, "second_encoder must be 'none' exactly when fusion is 'none'"),
        ({"tiles": 4}, "tiling must be 'none' exactly when tiles is 1"),
        ({"prune_layer": 2}, "prune_layer must be 0 exactly when compression is not 'fastv'"),
        ({"lm_experts": 1}, "lm_experts must be 0 .dense. or 2 and more"),
        ({"attention": "flash"}, "attention: Input should be 'sdpa' or 'eager'"),
        ({"projector": "cross-atention"}, "did you mean 'cross-attention'"),
        ({"encoder_depth": 2}, "fewer blocks than the whole .*encoder_deepest_cut=1"),
        ({"second_encoder": "vit-mirco", "fusion": "channel"}, "did you mean 'vit-micro'"),
        ({"depth": 3}, "unknown key 'depth'"),
    ],
)
def test_a_candidate_file_that_cannot_be_built_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    fields: dict[str, Any] = dict(MICRO.baseline) | {
        "resolution": 64, "compression": "avgpool", "compression_factor": 4
    } | changes  # fmt: skip
    path = tmp_path / "candidate.yaml"
    path.write_text(yaml.safe_dump(fields))
    with pytest.raises(SpaceError, match=words):
        search_spaces.load_candidate(path)


def test_a_candidate_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "candidate.yaml"
    path.write_text(yaml.safe_dump(MICRO.candidates[7].to_dict()))
    assert search_spaces.load_candidate(path) == MICRO.candidates[7]


# Keys as they were before there were optional axes: what is stored under them must be found again.
FROZEN = {
    "micro": (468, ("52fd9ea3d7a2", "36ee91eeee25", "2ff2f6fa0fdb", "c280b435a444"), "d8c21d7cf5d3896e"),
    "pocket": (3195, ("22668ea2e362", "8516ac05bbeb", "4bdf0594a65e", "dfeed46bbc3c"), "bfab505896fb4155"),
    "microvlm": (6264, ("d4b467cff708", "820d0a883751", "f1a39304de98", "32b334beb289"), "17da2aa59991ad99"),
}


@pytest.mark.parametrize("name", FROZEN)
def test_keys_and_their_order_are_those_of_the_first_version(name: str) -> None:
    layers = {"lm_layers": ["uniform"]} if name == "pocket" else {}  # pocket has named another rule since
    keys = [candidate.key for candidate in search_spaces.load(name, layers).candidates]
    some = (keys[0], keys[1], keys[len(keys) // 2], keys[-1])
    every = hashlib.sha256(" ".join(keys).encode()).hexdigest()[:16]
    assert (len(keys), some, every) == FROZEN[name]


def test_every_optional_field_away_from_its_default_makes_another_key_and_is_said() -> None:
    seven = dict(MICRO.baseline)
    whole = Candidate.model_validate(seven)
    assert set(OPTIONAL) == set(whole.to_dict()) - set(seven)
    others: list[dict[str, Any]] = [
        {"encoder_depth": 1}, {"second_encoder": "conv-micro", "fusion": "channel"}, {"tiling": "s2", "tiles": 2},
        {"temporal_factor": 4}, {"compression": "fastv", "compression_factor": 2, "prune_layer": 2}, {"lm_ffn": 128},
        {"lm_heads": 2}, {"lm_experts": 4}, {"lm_weights": "int4"}, {"kv_cache": "int8"}, {"attention": "eager"},
    ]  # fmt: skip
    designs = [Candidate.model_validate(seven | other) for other in others]
    assert len({design.key for design in [whole, *designs]}) == 1 + len(designs)
    for design, other in zip(designs, others, strict=True):
        assert all(f"{name}={value}" in str(design) for name, value in other.items() if name in OPTIONAL)
    assert str(whole) == "vit-micro@112 mlp llama-microx6"


def test_an_axis_that_a_space_does_not_declare_stays_at_its_default(tmp_path: Path) -> None:
    space = search_spaces.load(written(tmp_path, axes=MICRO.axes | {"attention": ["eager", "sdpa"]}, rules=None))
    assert set(space.axes) == {*MICRO.axes, "attention"}
    assert space.decode(MICRO.baseline | {"attention": "sdpa"}) == MICRO.baseline_candidate
    with pytest.raises(SpaceError, match="tiles must be one of"):
        space.decode(MICRO.baseline | {"attention": "sdpa", "tiles": 4})


RULED = {"encoder": "vit-micro", "resolution": 64, "lm": "llama-micro", "lm_depth": 4, "lm_heads": 2, "lm_ffn": 0}


@pytest.mark.parametrize(
    ("fields", "holds"),
    [
        ({"when": {"lm_depth": [4]}, "require": {"encoder": ["conv-micro"]}}, False),
        ({"when": {"lm_depth": [3]}, "require": {"encoder": ["conv-micro"]}}, True),
        ({"unless": {"lm_depth": [4]}, "require": {"encoder": ["conv-micro"]}}, True),
        ({"unless": {"lm_depth": [3]}, "require": {"encoder": ["conv-micro"]}}, False),
        ({"when": {"encoder_family": ["vit"]}, "forbid": {"resolution": [64, 96]}}, False),
        ({"when": {"encoder_family": ["cnn"]}, "forbid": {"resolution": [64, 96]}}, True),
        ({"divides": ["lm_heads_a_group", "lm_heads"]}, True),
        ({"divides": ["lm_ffn", "lm_depth"]}, False),
        ({"at_most": ["lm_depth", "lm_published_depth"]}, True),
        ({"at_most": ["lm_depth", "lm_heads"]}, False),
    ],
)
def test_a_rule_holds_as_its_words_say(fields: dict[str, Any], holds: bool) -> None:
    assert Rule.model_validate({"name": "x", **fields}).holds(RULED) is holds


@pytest.mark.parametrize("lm", sorted(search_spaces.catalogue.language_models()))
def test_every_language_model_of_the_catalogue_is_buildable_as_published(lm: str) -> None:
    """Also where it has no attention heads, no feed-forward part or several kinds of layers."""
    depth = search_spaces.catalogue.language_model(lm).layers
    assert buildable(MICRO.baseline_candidate.model_copy(update={"lm": lm, "lm_depth": depth})) is None


def test_resized_decoders_of_a_space_are_those_that_can_be_built(tmp_path: Path) -> None:
    """The numbering leaves out by rule exactly what resizing an unlike decoder would refuse."""
    axes = {name: [value] for name, value in MICRO.baseline.items()} | {
        "lm": ["llama-micro", "mamba-130m", "lfm2-350m", "qwen3-0.6b"],
        "lm_ffn": [0, 64, 100, 512], "lm_heads": [0, 2, 3, 8], "lm_experts": [0, 4],
        "compression": ["none", "fastv"], "compression_factor": [1, 7], "prune_layer": [0, 2],
    }  # fmt: skip
    space = search_spaces.load(written(tmp_path, axes=axes, rules=None))
    built = []
    for combination in itertools.product(*axes.values()):
        try:
            candidate = Candidate.model_validate(dict(zip(axes, combination, strict=True)))
        except ValueError:
            continue
        if buildable(candidate) is None:
            built.append(candidate.key)
    assert sorted(built) == sorted(candidate.key for candidate in space.candidates)
    assert {candidate.lm for candidate in space.candidates} == set(axes["lm"])


def test_a_language_model_of_a_folder_may_stand_on_an_axis(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    config = {
        "model_type": "llama", "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 264, "tie_word_embeddings": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    axes = MICRO.axes | {"lm": ["llama-micro", str(folder)]}
    space = search_spaces.load(written(tmp_path, axes=axes))
    assert {candidate.lm_depth for candidate in space.candidates if candidate.lm == str(folder)} == {1, 2, 3}


def test_a_field_at_its_default_does_not_enter_the_key() -> None:
    fields = MICRO.candidates[0].to_dict()
    without = {name: value for name, value in fields.items() if name != "lm_layers"}
    assert Candidate.model_validate(without).key == Candidate.model_validate(fields).key
