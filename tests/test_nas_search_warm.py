"""Warm starts: an earlier run's scores and trainings are taken over, and only latency is new."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from stored_runs import designs, evaluation, stored_run, this_device

import search_spaces
from nas.config import SearchConfig
from nas.errors import ConfigError, RunError
from nas.run_folder import RunFolder
from nas.search.anchors import choose
from nas.search.problem import define
from nas.search.warm import WarmStart, named, warm_start
from nas.store import Store

DEVICE, ELSEWHERE = this_device(), "raspberry-pi-5-8gb"
PROXIES = ["params", "synflow"]


@pytest.fixture
def earlier(tmp_path: Path) -> RunFolder:
    runs = [evaluation(candidate, DEVICE, 1.0 + place) for place, candidate in enumerate(designs(6))]
    return stored_run(tmp_path, runs, {designs(6)[1].key: 0.7, designs(6)[4].key: 0.5}, study="earlier")


def started(tmp_path: Path, earlier: RunFolder, **changes: object) -> tuple[WarmStart, Store, list[str]]:
    fields: dict[str, object] = {"space": "micro", "devices": [ELSEWHERE], "constraints": [], "proxies": PROXIES}
    problem = define(SearchConfig.model_validate({**fields, "start_from": str(earlier.path), **changes}))
    folder = RunFolder(tmp_path / "new")
    folder.path.mkdir()
    store, said = Store(folder.default_storage), list[str]()
    return warm_start(problem, folder, store, said.append), store, said


def test_another_device_takes_over_scores_and_trainings(tmp_path: Path, earlier: RunFolder) -> None:
    warm, store, said = started(tmp_path, earlier)
    assert set(warm.outcomes) == {one.key for one in designs(6)}
    assert all(set(outcome.proxies) == set(PROXIES) for outcome in warm.outcomes.values())
    trainings = store.trainings("new")
    assert {key: one.accuracy_open for key, one in trainings.items()} == {
        designs(6)[1].key: 0.7,
        designs(6)[4].key: 0.5,
    }
    assert all(one.checkpoint is None for one in trainings.values())  # weights stay in the earlier run
    assert {one.key for one in warm.first} == set(trainings)
    assert "6 candidates of this space, 6 with their scores, 2 with their training" in said[0]
    store.close()


def test_other_seeds_and_recipes_take_over_nothing_that_depends_on_them(tmp_path: Path, earlier: RunFolder) -> None:
    warm, store, said = started(tmp_path, earlier, seed=5, train_steps=7)
    assert not warm.outcomes and not store.trainings("new")
    assert said[0].endswith("0 with their training; 2 were trained with other train_steps, seed")
    store.close()


def test_trained_models_are_taken_over_with_their_weights(tmp_path: Path, earlier: RunFolder) -> None:
    key = designs(6)[1].key
    earlier.finalist(key).mkdir(parents=True)
    (earlier.finalist(key) / "model.safetensors").write_bytes(b"weights")
    (earlier.finalist(key) / "training.json").write_text("{}")
    _, store, _ = started(tmp_path, earlier)
    assert {name for name, one in store.trainings("new").items() if one.checkpoint is not None} == {key}
    assert (tmp_path / "new" / "finalists" / key / "model.safetensors").read_bytes() == b"weights"
    store.close()


def test_a_run_without_its_database_is_refused_and_left_as_it_is(tmp_path: Path, earlier: RunFolder) -> None:
    (earlier.path / "study.db").unlink()
    with pytest.raises(RunError, match=r"has no study\.db; give a run that has been searched"):
        started(tmp_path, earlier)
    assert not (earlier.path / "study.db").exists()


def test_what_is_trained_already_counts_among_the_anchors() -> None:
    problem = define(SearchConfig(space="micro", devices=[ELSEWHERE], constraints=[], anchors=6))
    allowed, taken = list(problem.space.candidates), designs(3)
    chosen = choose(problem, allowed, 3, taken)
    assert len({one.key for one in [*taken, *chosen]}) == 6
    assert choose(problem, allowed, 0, taken) == []


def test_named_candidates_come_first_and_must_be_of_the_space(tmp_path: Path) -> None:
    mine, strange = tmp_path / "mine.yaml", tmp_path / "strange.yaml"
    mine.write_text(yaml.safe_dump(designs(3)[1].to_dict()))
    strange.write_text(yaml.safe_dump(search_spaces.load("pocket").baseline_candidate.to_dict()))
    config = SearchConfig(space="micro", devices=[ELSEWHERE], candidates=[str(mine)])
    assert named(define(config)) == [designs(3)[1]]
    with pytest.raises(ConfigError, match="is not of space micro: encoder="):
        named(define(config.model_copy(update={"candidates": [str(strange)]})))
