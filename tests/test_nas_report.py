"""The report says what was found, how each number was obtained, and what it does not know."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_runs import BLIND, designs, evaluation, failed, stored_run, this_device

from nas import report
from nas.report_checks import number
from nas.report_html import html
from nas.report_limits import over_limit
from nas.report_text import Table, as_csv, finalists_table, front_table, markdown, table
from nas.run_folder import RunFolder
from nas.search.problem import Problem

DEVICE = this_device()
DESIGNS = sorted(designs(5), key=lambda candidate: evaluation(candidate, DEVICE, 1.0).quality.value)  # type: ignore[union-attr]
BROKEN, BEYOND = [candidate for candidate in designs(20) if candidate not in DESIGNS][:2]
KEYS = [candidate.key for candidate in DESIGNS]
LABELLED = {  # number -> the key beside it that says how it was obtained
    "memory_gib": "memory_label", "params": "params_label", "visual_tokens": "visual_tokens_label",
    "proxies": "proxies_label", "value": "label", "accuracy_open": "label", "latency_ms": "label",
}  # fmt: skip


def growing() -> list[Any]:
    """Better predicted costs more, so every design is on the front."""
    return [evaluation(candidate, DEVICE, 1.0 + place) for place, candidate in enumerate(DESIGNS)]


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Five on the front, two of them trained in the opposite order of their prediction, one failed, one infeasible."""
    runs = [*growing(), evaluation(BEYOND, DEVICE, 50.0, limit_ms=100), failed(BROKEN, "<b>out of memory</b>")]
    return stored_run(
        tmp_path_factory.mktemp("runs"),
        runs,
        accuracies={KEYS[4]: 0.5, KEYS[1]: 0.9},
        measured={KEYS[4]: 5.5, KEYS[1]: 2.0},
        constraints=["latency_ms <= 100"],
    )


@pytest.fixture(scope="module")
def found(proven: RunFolder) -> dict[str, Any]:
    return report.document(proven)


def test_the_document_holds_what_the_contract_names(found: dict[str, Any]) -> None:
    assert set(found) >= {
        "study", "space", "devices", "workload", "objectives", "constraints", "counts", "front", "baseline_check",
        "wall_s",
    }  # fmt: skip
    assert found["counts"] | {"duplicates_avoided": 0} == {
        "complete": 5, "infeasible": 1, "failed": 1, "duplicates_avoided": 0, "gated_out": 0, "unmeasured": 0,
        "trained": 2,
    }  # fmt: skip
    assert found["failures"] == [{"key": BROKEN.key, "reason": "<b>out of memory</b>", "traceback": "Traceback"}]
    json.dumps(found, allow_nan=False)


def test_no_number_lacks_its_label(found: dict[str, Any]) -> None:
    def walk(item: object) -> None:
        if isinstance(item, dict):
            for name, value in item.items():
                if name in LABELLED and value is not None:
                    assert item.get(LABELLED[name]), f"{name} has no {LABELLED[name]}"
                if name != "proxies":  # one label speaks of them all
                    walk(value)
        elif isinstance(item, list):
            for value in item:
                walk(value)

    walk(found["front"])
    front, proofs = front_table(found), finalists_table(found)
    for shown in (front, proofs):
        for title, label, cells in zip(shown.titles, shown.labels, zip(*shown.rows, strict=True), strict=True):
            bare = {"#", "key", "design", "in interval"}
            assert label or title in bare or all(re.search(r"[a-z]|–", cell) for cell in cells), title


def test_the_front_is_ranked_by_training_and_the_rest_follows_by_prediction(found: dict[str, Any]) -> None:
    assert [entry["key"] for entry in found["front"]] == [KEYS[1], KEYS[4], KEYS[3], KEYS[2], KEYS[0]]
    assert [entry["rank"] for entry in found["front"]] == [1, 2, 3, 4, 5]
    assert [entry["ranked_by"] for entry in found["front"]] == ["trained:short"] * 2 + ["predicted:prior"] * 3
    assert "ranks 1 to 2 are by trained accuracy" in found["label_warning"]


def test_the_verdict_names_the_best_trained_and_says_that_the_score_was_wrong(found: dict[str, Any]) -> None:
    best, ranking = found["verdict"][0], found["verdict"][1]
    assert KEYS[1] in best and "0.900 [0.870, 0.930] trained:short" in best and f"{BLIND:.3f}" in best
    assert "20.0 [18.0, 22.0] ms measured" in best
    assert "of the one pair that training tells apart, the score ordered 0 right" in ranking and "no proof" in ranking
    assert f"nas train candidates/{KEYS[1]}.yaml --steps 100 --seed N" in found["verdict"][2]
    assert found["baseline_check"]["score"]["kendall_tau"] == -1


def test_composed_latency_is_held_against_measured(found: dict[str, Any]) -> None:
    errors = {row["key"]: row for row in found["composed_against_measured"]}
    assert errors[KEYS[4]]["error"] == pytest.approx(5 / 5.5 - 1)
    assert errors[KEYS[1]]["error"] == pytest.approx(0)
    assert errors[KEYS[1]]["inside_interval"] and errors[KEYS[4]]["inside_interval"]
    assert any("2 of 2 measured values lie inside" in line for line in found["verdict"])


def test_a_proxy_that_failed_is_unknown_with_its_reason(found: dict[str, Any]) -> None:
    assert all(entry["proxies"]["synflow"] is None for entry in found["front"])
    assert found["front"][0]["proxy_errors"] == {"synflow": "no <gradient>"}


def test_a_faster_finalist_that_accuracy_cannot_tell_apart_is_named(tmp_path: Path) -> None:
    folder = stored_run(tmp_path, growing(), {KEYS[4]: 0.90, KEYS[1]: 0.88}, {KEYS[4]: 5.0, KEYS[1]: 2.0})
    found = report.document(folder)
    rival = next(line for line in found["verdict"] if line.startswith("Not told apart"))
    assert "2.5x faster" in rival and KEYS[1] in rival
    assert "not decidable: the 95 % intervals of all 2 trained models overlap" in found["baseline_check"]["verdict"]


def test_accuracy_at_the_blind_level_is_called_noise(tmp_path: Path) -> None:
    found = report.document(stored_run(tmp_path, growing(), {KEYS[4]: BLIND + 0.01}))
    assert any("is noise" in line for line in found["verdict"])
    assert 'class="verdict open"' in html(found, [])


def test_a_busy_device_is_called_so(tmp_path: Path, found: dict[str, Any]) -> None:
    assert not any(line.startswith("Latency is uncertain") for line in found["verdict"])
    quiet = evaluation(DESIGNS[4], DEVICE, 1.0)
    noisy = replace(quiet, latency={DEVICE: replace(quiet.latency[DEVICE], high_ms=30.0)})
    lines = report.document(stored_run(tmp_path, [noisy]))["verdict"]
    assert any(line.startswith("Latency is uncertain") and "3.0x" in line for line in lines)


def test_one_trained_model_decides_nothing(tmp_path: Path) -> None:
    found = report.document(stored_run(tmp_path, growing(), {KEYS[2]: 0.8}))
    assert found["baseline_check"]["verdict"] == "not decidable: fewer than two trained models"


def test_a_finalist_that_was_dominated_later_stays_in_the_report(tmp_path: Path) -> None:
    slow = evaluation(DESIGNS[0], DEVICE, 30.0)
    found = report.document(stored_run(tmp_path, [*growing()[1:], slow], {slow.key: 0.7}))
    assert slow.key not in [entry["key"] for entry in found["front"]]
    assert [entry["key"] for entry in found["off_front"]] == [slow.key]
    assert slow.key in found["verdict"][0]


@pytest.mark.parametrize("evaluations", [[], [failed(DESIGNS[0], "broken")]])
def test_a_run_without_a_result_is_reported_too(tmp_path: Path, evaluations: list[Any]) -> None:
    folder = stored_run(tmp_path, evaluations)
    report.write(folder)
    assert report.document(folder)["verdict"] == ["No feasible candidate has been evaluated yet."]


def test_the_bound_of_a_constraint_comes_back_from_what_was_stored(found: dict[str, Any], tmp_path: Path) -> None:
    assert found["limits"] == {"latency_ms <= 100": pytest.approx(100)}
    unknown = report.document(stored_run(tmp_path, growing(), constraints=["params <= 5e6"], study="other"))
    assert unknown["limits"] == {"params <= 5e6": None}
    runs = [evaluation(candidate, DEVICE, 1.0 + place, limit_ms=35) for place, candidate in enumerate(DESIGNS)]
    limited = report.document(stored_run(tmp_path, runs, constraints=["latency_ms <= 35"]))
    assert limited["limits"] == {"latency_ms <= 35": pytest.approx(35)}
    assert [entry["key"] for entry in limited["front"]] == [KEYS[2], KEYS[1], KEYS[0]]


def test_write_leaves_the_files_of_the_contract(proven: RunFolder, found: dict[str, Any]) -> None:
    report.write(proven)
    stored = json.loads((proven.path / "front.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(found))
    for name in ("trials.csv", "report.md", "report.html", f"candidates/{KEYS[1]}.yaml"):
        assert (proven.path / name).stat().st_size


def test_every_evaluation_is_a_row_with_labels(proven: RunFolder) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(report.trial_rows(report.read(proven))))))
    assert [row["status"] for row in rows] == ["complete"] * 5 + ["infeasible", "failed"]
    assert rows[0]["quality_label"] == "predicted:prior" and rows[0][f"latency_label@{DEVICE}"] == "composed"
    assert rows[5]["violated"] == "latency_ms <= 100" and rows[6]["error"] == "<b>out of memory</b>"


def test_the_page_needs_no_network_and_escapes_what_it_is_given(proven: RunFolder, found: dict[str, Any]) -> None:
    page = html(found, report.trial_rows(report.read(proven)))
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=", page)
    assert "&lt;b&gt;out of memory" in page and "<b>out of memory" not in page
    for title in ("Predicted front", "What training and measuring showed", "Training loss", "Where the time"):
        assert title in page
    assert page.count('<tr class="complete">') == 5


def test_markdown_tables_are_rectangular(found: dict[str, Any]) -> None:
    for block in re.findall(r"(?:^\|.*\n)+", markdown(found), flags=re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_a_label_that_a_column_shares_stands_in_the_heading_and_mixed_ones_in_the_cells() -> None:
    columns = [("ms", lambda entry: (entry["text"], entry["label"]))]
    alike = table(columns, [{"text": "1", "label": "measured"}, {"text": "2", "label": "measured"}])
    assert alike == Table(("ms",), ("measured",), [("1",), ("2",)])
    mixed = table(columns, [{"text": "1", "label": "measured"}, {"text": "2", "label": "composed"}])
    assert mixed == Table(("ms",), ("",), [("1 measured",), ("2 composed",)])


@given(st.floats(min_value=1e-9, max_value=1e9))
def test_a_printed_number_is_true_to_half_a_percent_or_to_its_last_digit(value: float) -> None:
    assert float(number(value)) == pytest.approx(value, rel=0.05 if value < 0.001 else 0.051)
    if value >= 0.1:
        assert float(number(value)) == pytest.approx(value, rel=0.0051)


def test_front_of_a_problem_agrees_with_the_document(proven: RunFolder, found: dict[str, Any]) -> None:
    problem: Problem = report.read(proven).problem
    assert found["devices"] == problem.devices == [DEVICE]


def test_a_finalist_that_misses_a_limit_when_measured_is_named() -> None:
    entry = {"key": "abc", "measured": {"here": {"latency_ms": 120.0}}}
    found = {"limits": {"latency_ms <= 100": 100.0, "latency_ms <= 130": 130.0}, "devices": ["here"]}
    (line,) = over_limit(found, [entry])
    assert "abc has latency_ms 120 measured" in line
    assert "'latency_ms <= 100' allows 100" in line
