"""Figures show the numbers of the document, each with its label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stored_runs import designs, evaluation, stored_run, this_device

from nas import figures, report

DEVICE = this_device()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> report.Run:
    """Six designs; the first three cost more the better they are predicted."""
    chosen = designs(6)
    runs = [evaluation(candidate, DEVICE, 1.0 + place) for place, candidate in enumerate(chosen)]
    keys = [chosen[0].key, chosen[5].key]
    folder = stored_run(
        tmp_path_factory.mktemp("runs"), runs, {keys[0]: 0.4, keys[1]: 0.8}, {keys[0]: 1.1, keys[1]: 6.0}
    )
    return report.read(folder)


@pytest.fixture(scope="module")
def found(run: report.Run) -> dict[str, Any]:
    return report.describe(run)


def test_every_feasible_design_is_drawn_once(run: report.Run, found: dict[str, Any]) -> None:
    figure = figures.front_figure(found, report.trial_rows(run))
    drawn = {trace.name: len(trace.x) for trace in figure.data}
    assert drawn.pop("finalists, latency measured end to end") == 2 - len(found["off_front"])
    assert sum(drawn.values()) == 6


def test_the_axes_say_how_their_numbers_were_obtained(run: report.Run, found: dict[str, Any]) -> None:
    front = figures.front_figure(found).layout
    assert "composed" in front.xaxis.title.text and "predicted:prior" in front.yaxis.title.text
    proof = figures.proof_figure(found).layout
    assert "measured" in proof.xaxis.title.text and "predicted:prior" in proof.xaxis2.title.text
    assert "trained:short" in proof.yaxis.title.text


def test_error_bars_reach_to_the_interval(found: dict[str, Any]) -> None:
    trace = next(trace for trace in figures.front_figure(found).data if trace.name == "front")
    upper = [x + up for x, up in zip(trace.x, trace.error_x.array, strict=True)]
    assert sorted(upper) == pytest.approx(sorted(entry["latency"][DEVICE]["high"] for entry in found["front"]))


def test_the_parts_of_an_answer_add_up_to_its_latency(found: dict[str, Any]) -> None:
    figure = figures.parts_figure(found)
    totals: dict[str, float] = {}
    for bar in figure.data:
        for name, span in zip(bar.y, bar.x, strict=True):
            totals[name] = totals.get(name, 0.0) + span
    for entry in [*found["front"], *found["off_front"]]:
        short = entry["key"][: figures.SHORT_KEY]
        assert totals[f"{short} composed"] == pytest.approx(entry["latency"][DEVICE]["latency_ms"])
        if entry["measured"]:
            assert totals[f"{short} measured"] == pytest.approx(entry["measured"][DEVICE]["latency_ms"])


def test_a_finalist_that_was_not_measured_is_drawn_at_its_composed_latency(tmp_path: Path) -> None:
    chosen = designs(2)
    runs = [evaluation(candidate, DEVICE, 1.0 + place) for place, candidate in enumerate(chosen)]
    found = report.document(stored_run(tmp_path, runs, {chosen[0].key: 0.4}))
    assert "composed" in figures.proof_figure(found).layout.xaxis.title.text


def test_an_encoder_keeps_its_color_in_every_figure(run: report.Run, found: dict[str, Any]) -> None:
    rows = report.trial_rows(run)
    here = {t.name: t.marker.color for t in figures.front_figure(found, rows).data}
    there = {t.name: t.marker.color for t in figures.params_figure(rows).data}
    assert {name: color for name, color in here.items() if name in there} == there


def test_a_limit_of_another_device_is_not_drawn(found: dict[str, Any]) -> None:
    bounds = {"latency_ms <= 50": 50.0, f"latency_ms@{DEVICE} <= 40": 40.0, "latency_ms@elsewhere <= 30": 30.0}
    assert [line.x0 for line in figures.front_figure({**found, "limits": bounds}).layout.shapes] == [50, 40]
