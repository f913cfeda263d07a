"""Anchors: chosen over the feasible space, trained once, fitted, and judged in the report with each one left out."""

from __future__ import annotations

import json
import sqlite3
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from stored_runs import designs, evaluation, training
from test_cli_search import SMALL, nas

import search_spaces
from nas.config import SearchConfig
from nas.quality.anchored import Anchored
from nas.report_ranking import baseline_check
from nas.report_text import truth_words
from nas.search.anchors import choose, fit, offered, use_anchors
from nas.search.problem import define

ANCHORED = [*SMALL, "--anchors", "5", "--trials", "7"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("easy_vqa")
    folder = tmp_path_factory.mktemp("anchors")
    done = nas("search", *ANCHORED, "--study", "first", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "document.json").write_text(done.stdout, encoding="utf-8")
    (folder / "talk.txt").write_text(done.stderr, encoding="utf-8")
    return folder


def trained_keys(folder: Path) -> list[str]:
    with sqlite3.connect(folder / "runs" / "first" / "study.db") as store:
        return [key for (key,) in store.execute("select key from nas_trainings order by id")]


def test_the_score_is_fitted_on_trained_anchors_of_the_run(finished: Path) -> None:
    found = json.loads((finished / "document.json").read_text(encoding="utf-8"))
    anchors = found["score_fit"]["anchors"]
    assert len(set(anchors)) >= 5 and set(anchors) == set(trained_keys(finished))
    assert {entry["quality"]["label"] for entry in found["front"]} == {"predicted:anchored"}
    check = found["baseline_check"]
    assert "left out" in check["score_label"] and check["n"] == len(set(anchors))
    assert {one["key"] for one in check["models"]} == set(anchors)
    talk = (finished / "talk.txt").read_text(encoding="utf-8")
    assert "anchors      5 of" in talk and "predicted:anchored, fitted on 5 trained models" in talk


def test_the_report_shows_the_score_beside_the_truth(finished: Path) -> None:
    folder = finished / "runs" / "first"
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "Score against training" in text and "params tau" in text
        assert "Noise ceiling at most about rho" in text and "Proxies offered to the score" in text
    fitted = json.loads((folder / "front.json").read_text(encoding="utf-8"))["score_fit"]["proxies"]
    assert "flops" in fitted["gains"] and "synflow" not in fitted["gains"]


def test_the_finalist_is_a_design_that_no_anchor_has_shown(finished: Path) -> None:
    folder = finished / "runs" / "first"
    shown = {path.name for path in (folder / "anchors").iterdir()}
    proven = {path.name for path in (folder / "finalists").iterdir()}
    assert proven and not proven & shown


def test_anchors_keep_no_weights_but_finalists_do(finished: Path) -> None:
    folder = finished / "runs" / "first"
    assert not list((folder / "anchors").rglob("*.safetensors"))
    assert list((folder / "finalists").rglob("*.safetensors"))


def test_going_on_trains_no_anchor_again(finished: Path) -> None:
    before = trained_keys(finished)
    done = nas("search", *ANCHORED[:-1], "9", "--study", "first", "--resume", "--json", cwd=finished)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["counts"]["complete"] == 9
    assert trained_keys(finished)[: len(before)] == before


def test_too_few_anchors_are_refused(tmp_path: Path) -> None:
    done = nas("search", "--space", "micro", "--anchors", "3", "--dry-run", cwd=tmp_path)
    assert done.returncode == 2 and "anchors must be 0, or 5 or more" in done.stderr


def test_anchors_are_of_the_feasible_candidates_and_spread() -> None:
    problem = define(SearchConfig(space="micro", anchors=6))
    allowed = [one for one in problem.space.candidates if one.lm_depth > 1]
    chosen = choose(problem, allowed, 6)
    assert len({one.key for one in chosen}) == 6 and all(one.lm_depth > 1 for one in chosen)
    assert {one.encoder for one in chosen} == {one.encoder for one in allowed}
    assert choose(problem, allowed[::-1], 6) == chosen


def test_every_candidate_is_scored_with_the_admitted_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.quality.anchored.LEAST_GAIN", -100.0)  # the best one is admitted, whatever it gains
    problem = define(SearchConfig(space="micro", anchors=5))
    made = designs(8)
    trainings = {one.key: training(one.key, 0.2 + 0.07 * place) for place, one in enumerate(made)}
    problem.config = problem.config.model_copy(update={"train_steps": trainings[made[0].key].steps})
    model = use_anchors(problem, trainings)
    assert model is not None and model.admitted in offered(problem, made[:1])[0]
    survey = problem.space.survey
    used = [problem.quality(one).value for one in survey]
    assert used == pytest.approx([one.value for one in model.predict(survey, offered(problem, survey))])
    assert used != pytest.approx([one.value for one in model.predict(survey)])


def test_the_verdict_against_params_has_intervals() -> None:
    made = designs(8)
    evaluations = [evaluation(one, "here", 1.0) for one in made]
    accuracies = (0.2, 0.5, 0.3, 0.6, 0.4, 0.8, 0.7, 0.9)
    perfect = {one.key: share for one, share in zip(made, accuracies, strict=True)}
    trainings = {key: training(key, share) for key, share in perfect.items()}
    found = baseline_check(evaluations, trainings, perfect)
    assert found["score"]["kendall_tau_interval"] == pytest.approx((1, 1))
    low, high = found["params"]["kendall_tau_interval"]
    assert low < found["params"]["kendall_tau"] < high
    fit_of = {"proxies": {"gains": {"params": 0.5}, "least_gain": 3.0, "admitted": None}}
    words = truth_words({"baseline_check": found, "score_fit": fit_of})
    assert found["score"]["pairs_equal_latency"] == 28 and found["score"]["tau_equal_latency"] == pytest.approx(1)
    sizes = [e.cost.params for e in evaluations if e.cost]
    alike = [max(a, b) <= 1.1 * min(a, b) for a, b in combinations(sizes, 2)]
    assert found["params"]["pairs_equal_params"] == sum(alike) and found["score"]["top_shared"] == 1
    assert "+1.00 within 10 % latency (28), 100% of the best tenth" in words
    assert "score tau +1.00 [+1.00, +1.00]" in words and "needed: 3.00): params +0.50; admitted: none" in words


def test_only_models_trained_as_long_are_comparable() -> None:
    problem = define(SearchConfig(space="micro", anchors=5, train_steps=4))
    trainings = {one.key: training(one.key, 0.3 + 0.05 * place) for place, one in enumerate(designs(6))}
    assert {one.steps for one in trainings.values()} != {4}
    assert fit(problem, trainings) is None


def test_a_model_is_judged_by_the_fit_without_it() -> None:
    space = search_spaces.load("microvlm").candidates
    chosen = space[:: len(space) // 12][:12]
    truth = list(np.linspace(0.2, 0.8, 12))
    whole = Anchored(space, chosen, truth)
    # Kernels with their shares, mean and scale stay those of the whole fit, as in Rasmussen & Williams 5.4.2.
    process = whole.process
    for place in (0, 5, 11):
        kept = [i for i in range(12) if i != place]
        alone = 0.0
        for kernel, shares in zip(process.kernels, process.shares, strict=True):
            covariance = kernel.between(process.features[kept], process.features[kept]) + kernel.noise * np.eye(11)
            cross = kernel.between(process.features[[place]], process.features[kept])
            warped = (cross @ np.linalg.solve(covariance, process.targets[kept]))[0]
            medians = [warp.back(one) for warp, one in zip(process.warps, warped, strict=True)]
            alone += float(shares @ np.array(medians))
        assert whole.left_out()[place] == pytest.approx(process.mean + process.scale * alone, abs=1e-9)


def test_check_takes_the_left_out_score_where_there_is_one() -> None:
    made = designs(3)
    evaluations = [evaluation(one, "here", 1.0) for one in made]
    trainings = {one.key: training(one.key, 0.3 + 0.2 * place) for place, one in enumerate(made)}
    reverse = {one.key: -float(place) for place, one in enumerate(made)}
    assert baseline_check(evaluations, trainings, reverse)["score"]["kendall_tau"] == pytest.approx(-1)
