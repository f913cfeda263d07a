"""A search in process, on devices that are estimated: it solves exactly first, and a warm one builds nothing again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError

import hardware_profiles
import search_spaces
from nas import config as configs
from nas import report, run_folder
from nas.compare import compare
from nas.config import SearchConfig
from nas.errors import NothingFeasibleError
from nas.latency.measure import pinned
from nas.pareto import hypervolume
from nas.records import Evaluation
from nas.run_folder import RunFolder
from nas.search.exact import weigh
from nas.search.problem import Problem, define
from nas.search.run import run
from nas.search.session import Listener
from nas.search.trials import proposer_of
from search_spaces import Candidate


def searched(
    out: Path,
    study: str,
    device: str,
    heard: Callable[[Evaluation, int, int], None] | None = None,
    **changes: object,
) -> tuple[RunFolder, list[str], list[Evaluation]]:
    fields: dict[str, object] = {
        "space": "micro", "devices": [device], "constraints": [], "trials": 6, "finalists": 0, "study": study,
        "out": str(out), "proxies": ["params", "flops"],
    }  # fmt: skip
    config = SearchConfig.model_validate({**fields, **changes})
    folder = run_folder.create(out, study)
    folder.write(run_folder.CONFIG, configs.dump(config))
    folder.write(f"devices/{device}.yaml", hardware_profiles.dump(hardware_profiles.load(device)))
    said, finished = list[str](), list[Evaluation]()
    run(
        config, folder, Listener(said.append, trial=heard or (lambda evaluation, done, of: finished.append(evaluation)))
    )
    return folder, said, finished


def test_a_search_starts_on_the_exact_front_and_a_warm_one_builds_nothing_again(tmp_path: Path) -> None:
    first, said, finished = searched(tmp_path, "first", "raspberry-pi-5-8gb")
    problem = define(SearchConfig(space="micro", devices=["raspberry-pi-5-8gb"], constraints=[]))
    weighed = weigh(problem, problem.space.candidates)
    exact = {weighed.candidates[place].key for place in weighed.front}
    assert any(line.startswith("exact") and "every feasible candidate is weighed" in line for line in said)
    assert len(exact & {one.key for one in finished}) >= 3  # half of the trials, beside the landmarks
    found = json.loads((first.path / "front.json").read_text(encoding="utf-8"))
    assert set(found["exact"]["front"]) == exact and found["exact"]["weighed"] == problem.space.size
    assert all(0 <= entry["confidence"]["share"] <= 1 for entry in found["front"])

    second, said, again = searched(tmp_path, "second", "jetson-orin-nano-8gb", start_from=str(first.path))
    assert any("6 with their scores" in line for line in said)
    known = {one.key: one for one in finished}
    taken = [one for one in again if one.key in known]
    assert taken and all(one.wall_s == 0 and one.proxies == known[one.key].proxies for one in taken)
    assert all(set(one.latency) == {"jetson-orin-nano-8gb"} for one in again)
    assert report.document(second)["counts"]["complete"] == 6


def test_one_worker_and_one_seed_make_the_same_trials_and_scores_and_another_seed_is_named(tmp_path: Path) -> None:
    first, again = (searched(tmp_path, name, "raspberry-pi-5-8gb", trials=8)[0] for name in ("first", "again"))
    found = compare(first, again)
    assert (found["same_trials"], found["first_difference"]) == (8, None)
    assert found["settings"] == found["environment"] == {}
    other, _, _ = searched(tmp_path, "other", "raspberry-pi-5-8gb", trials=8, seed=1)
    found = compare(first, other)
    assert found["settings"] == {"seed": [0, 1]} and found["same_trials"] < 8


def test_a_search_by_the_funnel_that_was_interrupted_goes_on_as_it_would_have(tmp_path: Path) -> None:
    changes: dict[str, object] = {"sampler": "funnel", "trials": 11}
    _, _, whole = searched(tmp_path, "whole", "raspberry-pi-5-8gb", **changes)
    assert len({one.key for one in whole}) == 11 and all(one.status == "complete" for one in whole)

    finished = list[str]()

    def stop_at_nine(evaluation: Evaluation, done: int, of: int) -> None:
        finished.append(evaluation.key)
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path, "begun", "raspberry-pi-5-8gb", heard=stop_at_nine, **changes)
    folder = RunFolder(tmp_path / "begun")
    run(configs.load(folder.config_file, {}, []), folder, Listener(trial=stop_at_nine))
    assert finished == [one.key for one in whole]


def test_the_funnel_gains_more_hypervolume_than_random_draws_in_as_many_live_trials(tmp_path: Path) -> None:
    problem = define(SearchConfig(space="micro", devices=["raspberry-pi-5-8gb"], constraints=[]))
    every = np.array([problem.maximised(problem.metrics(candidate)) for candidate in problem.space.candidates])
    low = every.min(axis=0).tolist()
    reached = {}
    for name in ("funnel", "random"):
        config = SearchConfig(space="micro", devices=["raspberry-pi-5-8gb"], constraints=[], sampler=name)
        volumes = []
        for seed in range(4):
            problem = define(config.model_copy(update={"seed": seed}))
            proposer = proposer_of(problem, list(problem.space.candidates))
            gains = []
            for _ in range(14):
                candidate = proposer.propose()
                assert candidate is not None
                metrics = problem.metrics(candidate)
                proposer.tell(candidate, problem.objective_values(metrics), {})
                gains.append(problem.maximised(metrics))
            volumes.append(hypervolume(gains, low))
        reached[name] = sum(volumes)
    assert reached["funnel"] > reached["random"]


def test_trials_in_process_have_one_thread_and_leave_as_many_as_before(tmp_path: Path) -> None:
    with pinned(2):
        threads = list[int]()
        searched(tmp_path, "threads", "raspberry-pi-5-8gb", heard=lambda *_: threads.append(torch.get_num_threads()))
        assert threads == [1] * 6


def test_a_metric_that_is_no_number_costs_its_candidate_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, first = Problem.metrics, searched(tmp_path, "whole", "raspberry-pi-5-8gb")[2][0]
    lost, file = first.key, tmp_path / "lost.yaml"
    file.write_text(json.dumps(first.candidate), encoding="utf-8")

    def sometimes(self: Problem, candidate: Candidate) -> dict[str, float]:
        return metrics(self, candidate) | ({"quality": math.nan} if candidate.key == lost else {})

    monkeypatch.setattr(Problem, "metrics", sometimes)
    folder, _, finished = searched(tmp_path, "broken", "raspberry-pi-5-8gb", candidates=[str(file)])
    of = {one.key: one for one in finished}
    assert of[lost].status == "failed" and of[lost].error == "not finite: quality is nan"
    assert {one.status for key, one in of.items() if key != lost} == {"complete"} and len(finished) == 6
    found = json.loads((folder.path / "front.json").read_text(encoding="utf-8"))
    assert lost not in {entry["key"] for entry in found["front"]}


def test_what_was_named_and_cannot_be_tried_and_what_a_timeout_left_are_told(tmp_path: Path) -> None:
    baseline = tmp_path / "mine.yaml"
    baseline.write_text(yaml.safe_dump(search_spaces.load("micro").baseline_candidate.to_dict()))
    folder, said, finished = searched(
        tmp_path, "first", "raspberry-pi-5-8gb", constraints=["latency_ms <= 80% of baseline"], timeout_s=1e-6,
        candidates=[str(baseline)],
    )  # fmt: skip
    (left_out,) = [line for line in said if line.startswith("left out")]
    assert "'latency_ms <= 80% of baseline' is missed by" in left_out
    assert not finished
    assert f"timeout      0 of 6 trials ended in time; the others: nas resume {folder.path}" in said


def test_a_run_of_which_nothing_is_feasible_has_ended_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(NothingFeasibleError) as refused:
        searched(tmp_path, "none", "raspberry-pi-5-8gb", constraints=["latency_ms <= 0.1"])
    found = report.document(run_folder.find(str(tmp_path / "none")))
    assert found["counts"]["gated_out"] == found["search"]["space_size"]
    assert found["wall_s"] > 0
    assert found["nothing_feasible"] == str(refused.value)


def test_the_funnel_without_a_cost_is_refused() -> None:
    with pytest.raises(ValidationError, match="needs quality and a cost"):
        SearchConfig(sampler="funnel", objectives=["quality"])
