"""Weighing every candidate gives the front, how sure it is, and new fronts under other constraints."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_runs import designs, estimated_run, evaluation, stored_run, this_device
from typer.testing import CliRunner

import search_spaces
from cli.main import build_app
from nas.config import SearchConfig
from nas.errors import NothingFeasibleError, RunError
from nas.pareto import beaten, dominates, front, front_mask
from nas.report import document, read
from nas.report_checks import interval
from nas.report_text import front_table, markdown, solved_table, solved_words
from nas.run_folder import RunFolder
from nas.search.exact import weigh
from nas.search.problem import Problem, define
from nas.search.resolve import resolve
from nas.store import Store
from search_spaces import Candidate

DEVICE = this_device()
ESTIMATED, FASTER = "raspberry-pi-5-8gb", "jetson-orin-nano-8gb"
POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=30)


def problem(*constraints: str) -> Problem:
    return define(SearchConfig(space="micro", devices=[ESTIMATED], constraints=list(constraints)))


@given(POINTS, st.sampled_from([2, 3]))
def test_the_mask_is_the_front(points: list[tuple[int, int, int]], columns: int) -> None:
    some = [point[:columns] for point in points]
    assert sorted(front(some)) == np.flatnonzero(front_mask(np.array(some, dtype=float))).tolist()


@given(POINTS, POINTS, st.sampled_from([2, 3]))
def test_beaten_are_those_that_one_of_the_others_dominates(
    points: list[tuple[int, int, int]], by: list[tuple[int, int, int]], columns: int
) -> None:
    some, others = [point[:columns] for point in points], [point[:columns] for point in by]
    found = beaten(np.array(some, dtype=float), np.array(others, dtype=float))
    assert found.tolist() == [any(dominates(other, one) for other in others) for one in some]


def test_the_exact_front_is_that_of_every_candidate() -> None:
    asked = problem("latency_ms <= 70% of baseline")
    weighed = weigh(asked, asked.space.candidates)
    kept = [one for one in asked.space.candidates if not asked.breaks(asked.violations(asked.metrics(one)))]
    assert list(weighed.candidates) == kept and 0 < len(kept) < asked.space.size
    points = [asked.maximised(asked.metrics(one)) for one in kept]
    assert weighed.front == front(points)
    assert weighed.promising(3) == [kept[place] for place in front(points)[:3]]


def test_a_soft_constraint_rules_nothing_out_and_is_told() -> None:
    asked = problem("quality >= 98% of baseline (soft)", "params <= 90% of baseline")
    weighed = weigh(asked, asked.space.candidates)
    misses = [asked.violations(asked.metrics(one)) for one in weighed.candidates]
    assert any(found["quality >= 98% of baseline (soft)"] > 0 for found in misses)
    assert all(found["params <= 90% of baseline"] <= 0 for found in misses)
    hard = problem("quality >= 98% of baseline", "params <= 90% of baseline")
    assert len(weigh(hard, hard.space.candidates).candidates) < len(weighed.candidates)


def test_quality_is_not_judged_by_the_prior_where_anchors_will_say_better() -> None:
    asked = define(
        SearchConfig(space="micro", devices=[ESTIMATED], constraints=["quality >= 98% of baseline"], anchors=6)
    )
    assert asked.violations(asked.metrics(asked.space.candidates[0])) == {}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = [evaluation(candidate, DEVICE, 1.0 + place) for place, candidate in enumerate(designs(6))]
    return stored_run(tmp_path_factory.mktemp("runs"), runs).path


def test_a_design_that_was_weighed_and_never_built_counts_against_those_that_were(run: Path) -> None:
    folder = RunFolder(run)
    before = {one["key"]: one["confidence"]["share"] for one in document(folder)["front"]}
    with closing(Store(folder.default_storage)) as store:
        to_beat = {"keys": ["unbuilt"], "gains": [[1e6, 0.0]], "errors": [[[0.0] * 4, [0.0] * 4]]}
        store.set_meta(f"to_beat:{folder.study}", json.dumps(to_beat))
    try:
        assert before and max(before.values()) > 0
        assert {one["confidence"]["share"] for one in document(folder)["front"]} == {0}
    finally:
        with closing(Store(folder.default_storage)) as store:
            store.set_meta(f"to_beat:{folder.study}", json.dumps({"keys": []}))


def test_a_run_is_solved_again_without_a_new_evaluation(run: Path) -> None:
    done = CliRunner().invoke(
        build_app(), ["report", str(run), "--constraint", "latency_ms <= 35", "--json"], catch_exceptions=False
    )
    found = json.loads(done.stdout)
    assert found["weighed"] == 6 and found["feasible"] == 3 and not found["exact"]
    allowed = {one.key for one in designs(6)[:3]}
    assert found["front"] and {one["key"] for one in found["front"]} <= allowed
    assert all(one["evaluated"] for one in found["front"])


@pytest.fixture(scope="module")
def two_devices(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Devices in another order than that of their files, which is by name."""
    asked = problem()
    best = [asked.space.candidates[place] for place in front(_points(asked))][::2]
    return estimated_run(tmp_path_factory.mktemp("runs"), [ESTIMATED, FASTER], best)


def _points(asked: Problem) -> list[list[float]]:
    return [asked.maximised(asked.metrics(one)) for one in asked.space.candidates]


def test_each_device_has_its_own_latencies_in_whatever_order_they_were_searched(two_devices: RunFolder) -> None:
    found = resolve(two_devices, ["params <= 90% of baseline"])
    assert found["devices"] == [FASTER, ESTIMATED] and {one["evaluated"] for one in found["front"]} == {True, False}
    shown = solved_table(found)
    for device in found["devices"]:
        column = [row[shown.titles.index(f"latency ms @{device}")] for row in shown.rows]
        assert column == [interval(one["latency"][device], "latency_ms") for one in found["front"]]


def test_how_sure_a_front_is_does_not_depend_on_the_order_of_devices(two_devices: RunFolder, tmp_path: Path) -> None:
    tried = [one.candidate for one in read(two_devices).evaluations]
    other = estimated_run(tmp_path, [FASTER, ESTIMATED], [Candidate.model_validate(one) for one in tried])
    shares = [[one["confidence"] for one in document(folder)["front"]] for folder in (two_devices, other)]
    assert shares[0] == shares[1]


@pytest.fixture(scope="module")
def estimated(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Its first design breaks the hard constraint, of which the run's bounds come back."""
    constraints = "latency_ms <= 80% of baseline", "quality >= 98% of baseline (soft)"
    tried = [search_spaces.load("micro").baseline_candidate, *designs(12)]
    return estimated_run(tmp_path_factory.mktemp("runs"), [ESTIMATED], tried, *constraints)


def test_a_bound_in_percent_is_told_with_its_unit_and_label(estimated: RunFolder) -> None:
    base = problem().baseline_metrics
    told = (
        f"latency_ms <= 80% of baseline (= {0.8 * base[f'latency_ms@{ESTIMATED}']:.4g} ms estimated:datasheet)",
        f"quality >= 98% of baseline (soft) (= {0.98 * base['quality']:.4g} predicted:prior)",
    )
    assert f"constraints: {'; '.join(told)}." in markdown(document(estimated))
    asked = ["latency_ms <= 80% of baseline", "quality >= 98% of baseline (soft)", "params <= 3e5"]
    found = resolve(estimated, asked)
    assert solved_words(found)[0] == f"Constraints: {'; '.join([*told, 'params <= 3e5'])}."
    assert found["limits"] == pytest.approx(
        {asked[0]: 0.8 * base[f"latency_ms@{ESTIMATED}"], asked[1]: 0.98 * base["quality"], asked[2]: 3e5}
    )
    assert found["limit_labels"] == {asked[0]: "estimated:datasheet", asked[1]: "predicted:prior"}


def test_how_often_a_design_is_on_the_front_is_told_with_among_how_many(estimated: RunFolder) -> None:
    limit = "latency_ms <= 80% of baseline"
    asked = problem(limit)
    weighed = weigh(asked, asked.space.candidates)
    best = {weighed.candidates[place].key for place in weighed.front}
    tried = {one.key for one in read(estimated).evaluations if one.status == "complete"}
    told, again = document(estimated), resolve(estimated, [limit])
    for found, shown, among in (
        (told, front_table(told), len(tried | best)),
        (again, solved_table(again), len(weighed.candidates)),
    ):
        assert {one["confidence"]["among"] for one in found["front"]} == {among}
        assert shown.labels[shown.titles.index("on the front")] == f"of draws among {among}"


def test_a_front_that_is_solved_again_says_which_wishes_it_misses(estimated: RunFolder) -> None:
    wish = "quality >= 98% of baseline (soft)"
    found = resolve(estimated, [wish])
    bound, qualities = found["limits"][wish], [one["quality"]["value"] for one in found["front"]]
    assert [one["wishes_missed"] for one in found["front"]] == [[wish] if one < bound else [] for one in qualities]
    missed = sum(one < bound for one in qualities)
    assert 0 < missed < len(qualities)
    assert solved_words(found)[-1].startswith(f"Wish missed by {missed} of {len(qualities)} designs of the front: ")


def test_what_closed_forms_rule_out_was_looked_at(estimated: RunFolder) -> None:
    asked = problem("params <= 300000")
    small = [one for one in asked.space.candidates if asked.closed_form(one)["params"] <= 300000]
    found = resolve(estimated, ["params <= 300000"])
    assert found["weighed"] == found["candidates"] == asked.space.size and found["feasible"] == len(small)
    assert found["exact"] and 0 < len(small) < asked.space.size
    least = min(asked.closed_form(one)["params"] for one in asked.space.candidates)
    missed = rf"none of {asked.space.size} .*nearest: .*'params <= 10' is missed by {least - 10:,.0f} params; loosen"
    with pytest.raises(NothingFeasibleError, match=missed):
        resolve(estimated, ["params <= 10"])


def test_how_many_are_allowed_is_not_told_where_sides_were_weighed(estimated: RunFolder) -> None:
    found = resolve(estimated, ["params <= 300000"])
    large = {
        **found,
        "weighed": 923_760,
        "candidates": 923_760,
        "feasible": None,
        "how": "by the two sides of a design",
    }
    assert solved_words(large)[1].startswith("923,760 of 923,760 candidates were looked at; the front is exact: by the")


def test_what_cannot_be_kept_or_is_not_known_is_one_line(run: Path) -> None:
    with pytest.raises(NothingFeasibleError, match=r"none of 6 .*'latency_ms <= 1' is missed by 9 ms; loosen"):
        resolve(RunFolder(run), ["latency_ms <= 1"])
    with pytest.raises(RunError, match="not measured in this run"):
        resolve(RunFolder(run), ["latency_ms <= 50% of baseline"])
