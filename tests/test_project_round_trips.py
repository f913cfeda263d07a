"""What is written as YAML or JSON and read back is what it was; records in tables: `test_nas_store.py`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hardware_profiles
import nas.workload
import search_spaces
from nas import config as configs
from nas.config import SearchConfig
from nas.workload import Workload

SPACES = [search_spaces.load(name) for name in search_spaces.names()]
NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=20)
WHOLE, POSITIVE = st.integers(1, 10**6), st.floats(1e-6, 1e6)
CONFIGS = st.builds(
    SearchConfig, space=NAMES, devices=st.lists(NAMES, min_size=1, max_size=3, unique=True), study=st.none() | NAMES,
    overrides=st.dictionaries(NAMES, st.lists(WHOLE | NAMES, max_size=3), max_size=2),
    objectives=st.sampled_from([["quality"], ["quality", "latency_ms"], ["latency_ms@pi", "memory_gib"]]),
    constraints=st.none() | st.just(["latency_ms <= 3", "memory_gib <= 1 (soft)"]), timeout_s=st.none() | POSITIVE,
    proxies=st.none() | st.lists(NAMES, max_size=2), trial_timeout_s=POSITIVE, trial_memory_gib=st.none() | POSITIVE,
    sampler=st.sampled_from(["nsga2", "tpe", "random"]), apart=st.booleans(), cluster=st.none() | NAMES,
    candidates=st.lists(NAMES, max_size=2), seed=st.integers(0, configs.MOST_SEED), rungs=st.integers(1, 6),
    **dict.fromkeys(("trials", "workers", "train_steps"), WHOLE),
)  # fmt: skip
WORKLOADS = st.builds(
    Workload, name=NAMES, description=NAMES,
    **dict.fromkeys(("images", "frames", "turns", "prompt_tokens", "new_tokens", "batch"), WHOLE),
)  # fmt: skip
MANY = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@MANY
@given(config=CONFIGS)
def test_a_run_s_settings(config: SearchConfig, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(configs.dump(config), encoding="utf-8")
    assert configs.load(file, {}, []) == config


@MANY
@given(workload=WORKLOADS)
def test_a_workload(workload: Workload, tmp_path: Path) -> None:
    file = tmp_path / "workload.yaml"
    file.write_text(yaml.safe_dump(workload.model_dump(), allow_unicode=True), encoding="utf-8")
    assert nas.workload.load(str(file)) == workload


@MANY
@given(place=st.integers(0, len(SPACES) - 1), generator=st.randoms(use_true_random=False))
def test_a_candidate_of_any_space_and_its_key(place: int, generator: random.Random, tmp_path: Path) -> None:
    candidate, file = SPACES[place].sample(generator), tmp_path / "candidate.yaml"
    file.write_text(yaml.safe_dump(candidate.to_dict()), encoding="utf-8")
    again = search_spaces.load_candidate(file)
    assert again == candidate and again.key == candidate.key


@pytest.mark.parametrize("name", hardware_profiles.names())
def test_a_shipped_device(name: str, tmp_path: Path) -> None:
    profile, file = hardware_profiles.load(name), tmp_path / "device.yaml"
    file.write_text(hardware_profiles.dump(profile), encoding="utf-8")
    assert hardware_profiles.load(str(file)) == profile


@pytest.mark.parametrize("space", SPACES, ids=search_spaces.names())
def test_a_shipped_space(space: search_spaces.SearchSpace, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(space.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    assert search_spaces.load(str(file)) == space
