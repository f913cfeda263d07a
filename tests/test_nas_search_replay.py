"""Replay looks rows up on a virtual clock, counts hypervolume as by hand, and evaluates nothing twice."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from nas.errors import ConfigError
from nas.pareto import front_mask, hypervolume
from nas.search import table
from nas.search.funnel import best_within, cost_limits, expected_gain
from nas.search.replay import NOT_APPLICABLE, columns, compare, share, simulate

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
    found = compare(opened(file), ["funnel"], [16], range(6))
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
        (["accuracy", "accuracy"], ["kind"], "two objectives"),
        (["accuracy", "latency_ms"], ["kind", "accuracy"], "cannot be an axis"),
    ],
)
def test_a_mistake_is_one_line(file: Path, objectives: list[str], axes: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        table.read(file, objectives, axes)


def written(path: Path, rows: list[dict[str, object]]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("first", "second", "directions"),
    [
        ("val_loss", "num_params", ("min", "min")),
        ("top-1", "lat@phone", ("max", "min")),
        ("latency_ms", "accuracy", ("min", "max")),
        ("wer", "fps:max", ("min", "max")),
    ],
)
def test_an_objective_goes_the_way_its_name_says(
    tmp_path: Path, first: str, second: str, directions: tuple[str, str]
) -> None:
    rows: list[dict[str, object]] = [{"a": i, first: i, second.partition(":")[0]: -i} for i in range(4)]
    read = table.read(written(tmp_path / "t.csv", rows), [first, second], ["a"])
    assert read.directions == directions
    assert read.gains[3, 0] == (3 if directions[0] == "max" else -3)


def test_rows_that_are_left_out_are_counted(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"a": i, "quality": f"{50 + i}%", "latency_ms": f"{i},000"} for i in range(1, 9)]
    rows += [{"a": 9, "quality": "crashed", "latency_ms": 1}, {"a": 8, "quality": 1, "latency_ms": 1}]
    read = table.read(written(tmp_path / "t.csv", rows), ["quality", "latency_ms"], ["a"])
    assert (read.size, read.incomplete, read.repeated) == (8, 1, 1)
    assert read.gains[7].tolist() == [58, -8000]


def test_cells_that_are_no_numbers_leave_an_axis_its_numbers(tmp_path: Path) -> None:
    cells = ["--5", "", "1_2", 1, 10, 100]
    rows: list[dict[str, object]] = [{"a": a, "quality": i, "latency_ms": i + 1} for i, a in enumerate(cells)]
    read = table.read(written(tmp_path / "t.csv", rows), ["quality", "latency_ms"], ["a"])
    assert [dict(design.values)["a"] for design in read.designs] == cells
    numbers = read.structure[:, 3]
    assert numbers[:3].tolist() == [0, 0, 0] and np.diff(numbers[3:]) == pytest.approx(numbers[4] - numbers[3])


def test_designs_of_foreign_parts_are_told_apart_by_their_columns(tmp_path: Path) -> None:
    foreign = {"projector": "mlp", "compression": "none", "compression_factor": 1, "resolution": 64, "lm": "theirs"}
    rows: list[dict[str, object]] = [
        {**foreign, "encoder": f"theirs-{i % 2}", "lm_depth": i, "quality": i, "latency_ms": i} for i in range(1, 13)
    ]
    read = table.read(written(tmp_path / "t.csv", rows), ["quality", "latency_ms"])
    assert columns(read) is read.structure
    assert len(simulate(read, "funnel", 0, 12).places) == 12


def test_a_table_whose_designs_are_alike_in_an_objective_is_refused(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"a": i, "quality": 1, "latency_ms": i} for i in range(4)]
    with pytest.raises(ConfigError, match=r"t.csv has .* better than the worst .*; give other --objective"):
        table.read(written(tmp_path / "t.csv", rows), ["quality", "latency_ms"], ["a"])


def test_a_column_that_is_named_twice_is_refused_and_one_without_a_name_left_out(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text(",a,quality,latency_ms\n0,1,1,1\n1,2,2,2\n2,3,3,3\n", encoding="utf-8")
    assert table.read(file, ["quality", "latency_ms"], ["a"]).size == 3
    with pytest.raises(ConfigError, match=r"known: a, latency_ms, quality$"):
        table.read(file, ["quality", "latency_ms"], ["zzz"])
    file.write_text("a,,a ,quality,latency_ms\n0,1,1,1,1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"t.csv: its header names 'a' 2 times"):
        table.read(file, ["quality", "latency_ms"], ["a"])


def test_what_does_not_apply_is_said_where_all_samplers_are_compared(file: Path) -> None:
    read = opened(file)
    assert compare(read, ["tpe"], [2], range(2))["not_applicable"] == {}
    assert compare(read, budgets=[2], seeds=range(2))["not_applicable"] == NOT_APPLICABLE


@pytest.mark.parametrize("sampler", [*SAMPLERS, "gp"])
def test_more_workers_and_evaluations_than_rows_evaluate_every_row(tmp_path: Path, sampler: str) -> None:
    rows: list[dict[str, object]] = [{"a": i % 3, "b": i, "quality": i % 4, "latency_ms": i % 2} for i in range(10)]
    read = table.read(written(tmp_path / "t.csv", rows), ["quality", "latency_ms"], ["a", "b"])
    found = compare(read, [sampler], [25, 400], range(2), workers=30)
    assert {(row["evaluations"], row["share"], row["virtual_s"]) for row in found["results"]} == {(10, 1.0, 1.0)}


def test_gp_stops_early_beside_others_and_not_alone(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"a": i, "quality": i % 17, "latency_ms": i % 5} for i in range(60)]
    read = table.read(written(tmp_path / "t.csv", rows), ["quality", "latency_ms"], ["a"])
    beside = compare(read, ["nsga2", "gp"], [5, 55], range(2))["results"]
    assert [row["evaluations"] for row in beside if row["sampler"] == "gp"] == [5]
    assert [row["evaluations"] for row in beside if row["sampler"] == "nsga2"] == [5, 55]


def test_hypervolume_of_thousands_of_points_is_that_of_their_front() -> None:
    points = np.random.default_rng(0).uniform(size=(3000, 3))
    kept = points[front_mask(points)]
    assert hypervolume(points.tolist(), (0, 0, 0)) == pytest.approx(hypervolume(kept.tolist(), (0, 0, 0)))
    assert 0.9 < hypervolume(points.tolist(), (0, 0, 0)) < 1
