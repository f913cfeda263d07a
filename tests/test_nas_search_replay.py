"""Replay looks rows up on a virtual clock, counts hypervolume as by hand, and evaluates nothing twice."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from nas.errors import ConfigError
from nas.pareto import hypervolume
from nas.search import table
from nas.search.funnel import best_within, cost_limits, expected_gain
from nas.search.replay import compare, share, simulate

SAMPLERS = ["random", "tpe", "nsga2", "nsga3", "funnel"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 designs: more depth is better and slower; a kind that is never worth its time; times of 1 to 4 s."""
    path = tmp_path_factory.mktemp("replay") / "table.csv"
    with path.open("w", encoding="utf-8", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow(["kind", "depth", "rate", "accuracy", "latency_ms", "seconds"])
        for kind in ("good", "bad"):
            for depth in range(1, 11):
                for rate in (0.1, 0.2):
                    worth = (0.9 if kind == "good" else 0.4) * (1 - 0.8**depth) + rate / 10
                    rows.writerow([kind, depth, rate, worth, 2 + depth + 5 * (kind == "bad"), 1 + depth % 4])
    return path


def opened(file: Path) -> table.Table:
    return table.read(file, ["accuracy", "latency_ms"], ["kind", "depth", "rate"])


def test_a_table_is_read_by_its_columns(file: Path) -> None:
    read = opened(file)
    assert read.size == 40
    assert read.axes == {"kind": ["bad", "good"], "depth": list(range(1, 11)), "rate": [0.1, 0.2]}
    assert (read.gains[:, 1] < 0).all() and (read.gains[:, 0] > 0).all()
    assert read.surveyed({"kind": "good", "depth": 3, "rate": 0.2}).to_dict() == {
        "kind": "good",
        "depth": 3,
        "rate": 0.2,
    }


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_row_is_evaluated_once_at_most(file: Path, sampler: str) -> None:
    places = simulate(opened(file), sampler, seed=1, budget=60).places
    assert sorted(places) == list(range(40))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_same_seed_same_search_and_another_seed_another(file: Path, sampler: str) -> None:
    runs = [simulate(opened(file), sampler, seed, 20) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0].places != runs[2].places


def test_the_clock_of_one_worker_adds_up_and_several_overlap(file: Path) -> None:
    read = opened(file)
    one = simulate(read, "random", 0, 30)
    assert one.finished_s == pytest.approx(np.cumsum(read.seconds[list(one.places)]))
    four = simulate(read, "random", 0, 30, workers=4)
    assert all(first <= second for first, second in pairwise(four.finished_s))
    total = read.seconds[list(four.places)].sum()
    assert total / 4 <= four.finished_s[-1] <= total / 4 + read.seconds.max()


def test_hypervolume_is_that_of_the_picture() -> None:
    assert hypervolume([(2, 1), (1, 3)], (0, 0)) == 2 * 1 + 1 * 2
    assert hypervolume([(1, 1, 1), (2, 2, 0.5)], (0, 0, 0)) == pytest.approx(1 * 0.5 + 4 * 0.5)
    assert hypervolume([(1, 1), (-1, 5)], (0, 0)) == 1


def test_the_whole_table_has_all_of_its_hypervolume(file: Path) -> None:
    read = opened(file)
    whole = hypervolume(read.gains.tolist(), read.reference)
    assert share(read, range(read.size), whole) == pytest.approx(1)
    assert share(read, [0], whole) < 1


def test_the_funnel_finds_the_front_of_an_easy_table_that_random_draws_miss(file: Path) -> None:
    found = compare(opened(file), ["funnel"], [16], seeds=6)
    shares = {row["sampler"]: row for row in found["results"]}
    assert shares["funnel"]["share"] > 0.97 > shares["random"]["share"]
    assert shares["funnel"]["p_above_random"] < 0.05
    assert shares["funnel"]["duplicates"] == shares["random"]["duplicates"] == 0


def test_expected_gain_is_that_of_many_draws() -> None:
    generator = np.random.default_rng(0)
    costs, qualities = generator.uniform(1, 3, (6, 1)), generator.uniform(0, 1, 6)
    limits = cost_limits(costs)
    best = best_within(costs, qualities, limits)
    drawn = 0.6 + 0.2 * generator.standard_normal(40_000)
    cost = float(np.median(costs))
    gains = np.maximum(0, drawn[:, None] - best[None]) * (cost <= limits[None, :, 0])
    asked = expected_gain(np.array([0.6]), np.array([0.2]), np.array([[cost]]), best, limits)
    assert asked[0] == pytest.approx(gains.mean(), rel=0.03)


@pytest.mark.parametrize(
    ("objectives", "axes", "words"),
    [
        (["accuracy", "latency"], ["kind"], "did you mean 'latency_ms'"),
        (["accuracy"], ["kind"], "two objectives"),
        (["accuracy:up", "latency_ms"], ["kind"], "NAME:min or NAME:max"),
        (["accuracy", "latency_ms"], [], "name its own with --axis"),
        (["accuracy", "latency_ms"], ["knd"], "did you mean 'kind'"),
    ],
)
def test_a_mistake_is_one_line(file: Path, objectives: list[str], axes: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        table.read(file, objectives, axes)
