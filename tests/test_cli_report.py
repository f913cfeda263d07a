"""`nas report` in every form, and `nas env`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stored_runs import designs, evaluation, failed, stored_run, this_device
from test_project_layering import run_and_tell
from typer.testing import CliRunner

from cli.main import build_app
from nas.errors import ConfigError, RunError

DEVICE = this_device()
HEAVY = ("torch", "transformers", "timm", "ray", "optuna", "sklearn", "torchvision")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = designs(5)
    runs = [evaluation(candidate, DEVICE, 1.0 + place) for place, candidate in enumerate(chosen[:4])]
    return stored_run(tmp_path_factory.mktemp("runs"), [*runs, failed(chosen[4], "it broke")]).path


def said(*arguments: str) -> str:
    done = CliRunner().invoke(build_app(), list(arguments), catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_the_table_gives_labels_in_its_headings_and_the_verdict_below(run: Path) -> None:
    shown = said("report", str(run))
    assert "predicted:prior" in shown and "composed" in shown and "counted" in shown
    assert "Nothing is trained yet: the front is a prediction" in shown


def test_json_is_one_document(run: Path) -> None:
    assert json.loads(said("report", str(run), "--json"))["counts"]["complete"] == 4


@pytest.mark.parametrize(("form", "start"), [("md", "# study"), ("html", "<!doctype html>"), ("csv", "trial,key,")])
def test_each_format_starts_as_it_should(run: Path, form: str, start: str) -> None:
    assert said("report", str(run), "--format", form).startswith(start)


def test_failures_are_listed_with_their_reasons_and_traces(run: Path) -> None:
    shown = said("report", str(run), "--failures").splitlines()
    assert shown[:2] == [f"{designs(5)[4].key}  it broke", "    Traceback"]
    assert "proxy synflow gave no value 4 times  no <gradient>" in shown


def test_a_comparison_names_what_differs_and_the_trial_where_two_runs_part(run: Path, tmp_path: Path) -> None:
    chosen = designs(5)
    other = stored_run(tmp_path, [evaluation(one, DEVICE, 9.0) for one in (chosen[0], chosen[2])])
    stored = json.loads((other.path / "env.json").read_text(encoding="utf-8"))
    stored["packages"]["torch"] = "0.1"
    other.write("env.json", json.dumps(stored))
    found = json.loads(said("report", str(run), "--compare", str(other.path), "--json"))
    assert found["environment"] == {"packages.torch": [stored["installed"]["torch"], "0.1"]}
    assert (found["settings"], found["trials"], found["same_trials"]) == ({}, [5, 2], 1)
    assert [one["key"] for one in found["first_difference"]] == [chosen[1].key, chosen[2].key]
    shown = said("report", str(run), "--compare", str(other.path))
    assert '-> "0.1"' in shown and "the first 1 of 5 and 2 are the same" in shown


def test_a_run_is_like_itself(run: Path) -> None:
    shown = said("report", str(run), "--compare", str(run)).splitlines()
    assert [line.split(maxsplit=1)[1] for line in shown[:2]] == ["the same", "the same"]
    assert shown[2].endswith("the first 5 of 5 and 5 are the same") and len(shown) == 3


@pytest.mark.parametrize("form", [[], ["--json"], ["--format", "md"], ["--failures"]])
def test_a_report_waits_for_no_library_of_models(run: Path, form: list[str]) -> None:
    done = run_and_tell(["report", str(run), *form], HEAVY)
    done.check_returncode()
    assert done.stdout and "LOADED []" in done.stderr, done.stderr


def test_two_forms_at_once_are_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match="not several"):
        said("report", str(run), "--json", "--format", "md")


def test_a_run_that_does_not_exist_says_where_runs_are(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="runs are listed by"):
        said("report", str(tmp_path / "nothing"))


@pytest.mark.parametrize("form", [[], ["--json"], ["--constraint", "latency_ms <= 35"]])
def test_a_run_folder_with_a_part_missing_is_one_line_and_nothing_is_made(tmp_path: Path, form: list[str]) -> None:
    folder = stored_run(tmp_path, [evaluation(designs(5)[0], DEVICE, 1.0)])
    (folder.path / "study.db").rename(tmp_path / "kept.db")
    with pytest.raises(RunError, match=r"study\.db does not exist; put it back, or begin again with: nas resume"):
        said("report", str(folder.path), *form)
    with pytest.raises(RunError, match="does not exist"):
        said("report", str(folder.path), "--compare", str(folder.path))
    assert not list(folder.path.glob("study.db*"))
    (tmp_path / "kept.db").rename(folder.path / "study.db")
    (folder.path / "devices" / f"{DEVICE}.yaml").unlink()
    with pytest.raises(RunError, match=rf"devices lacks {DEVICE}; put back what is missing, or search again"):
        said("report", str(folder.path), *form)


def test_env_names_versions_and_what_optional_packages_are_there() -> None:
    found = json.loads(said("env"))
    assert found["python"] and found["packages"]["torch"]
    assert "optuna-dashboard" in found["optional"]
