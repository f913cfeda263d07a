"""The program as a user runs it: a whole search, a kill in the middle, and mistakes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import search_spaces

SMALL = ["--space", "micro", "--finalists", "1", "--train-steps", "4", "--set", "train_images=40"]


def nas(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=280,
        env=environment(),
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "COLUMNS": "200"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one small search has been run."""
    pytest.importorskip("easy_vqa")
    folder = tmp_path_factory.mktemp("search")
    done = nas("search", *SMALL, "--trials", "6", "--study", "first", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "document.json").write_text(done.stdout, encoding="utf-8")
    return folder


def test_json_is_one_document_of_the_contract(finished: Path) -> None:
    found = json.loads((finished / "document.json").read_text(encoding="utf-8"))
    assert set(found) >= {
        "study", "space", "devices", "workload", "objectives", "constraints", "counts", "front", "baseline_check",
        "wall_s",
    }  # fmt: skip
    assert found["counts"]["complete"] == 6
    for entry in found["front"]:
        assert entry["quality"]["label"] == "predicted:prior"
        assert entry["quality"]["low"] <= entry["quality"]["value"] <= entry["quality"]["high"]
        for latency in entry["latency"].values():
            assert latency["label"] == "composed"
            assert set(latency["parts"]) == {"preprocess_ms", "vision_ms", "projector_ms", "prefill_ms"}
            assert sum(latency["parts"].values()) == pytest.approx(latency["ttft_ms"])


def test_the_finalist_is_trained_measured_and_exported(finished: Path) -> None:
    found = json.loads((finished / "document.json").read_text(encoding="utf-8"))
    (proven,) = [entry for entry in found["front"] if entry["trained"]]
    assert proven["trained"]["label"] == "trained:short"
    assert [latency["label"] for latency in proven["measured"].values()] == ["measured"]
    assert (finished / "runs" / "latest" / "export" / "model.safetensors").is_file()


def test_the_run_folder_holds_what_the_contract_names(finished: Path) -> None:
    names = {path.name for path in (finished / "runs" / "latest").iterdir()}
    assert names >= {
        "config.resolved.yaml", "env.json", "study.db", "trials.csv", "front.json", "report.html", "report.md",
        "candidates",
    }  # fmt: skip


def test_optuna_reads_the_same_trials(finished: Path) -> None:
    import optuna

    study = optuna.load_study(study_name="first", storage=f"sqlite:///{finished}/runs/first/study.db")
    complete = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert len({trial.user_attrs["key"] for trial in complete}) == len(complete) >= 6


def test_resume_of_a_finished_run_repeats_nothing(finished: Path) -> None:
    before = keys(finished / "runs" / "first" / "study.db")
    done = nas("resume", "latest", "--json", cwd=finished)
    assert done.returncode == 0, done.stderr
    assert keys(finished / "runs" / "first" / "study.db") == before


def test_a_study_is_never_overwritten(finished: Path) -> None:
    done = nas("search", *SMALL, "--study", "first", cwd=finished)
    assert done.returncode == 2
    assert "exists already" in done.stderr


def test_after_sigkill_resume_finishes_the_rest_and_repeats_nothing(tmp_path: Path) -> None:
    arguments = [
        sys.executable,
        "-m",
        "cli.main",
        "search",
        *SMALL,
        "--finalists",
        "0",
        "--trials",
        "40",
        "--study",
        "killed",
    ]
    running = subprocess.Popen(
        arguments, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    database = tmp_path / "runs" / "killed" / "study.db"
    deadline = time.monotonic() + 300
    while len(complete(database)) < 5 and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    before = complete(database)
    assert 5 <= len(before) < 40
    done = nas("resume", "latest", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "trials       in a process of their own" in done.stderr  # it may have been a trial that killed it
    after = complete(database)
    assert after[: len(before)] == before
    assert len(after) == len(set(after)) == 40


def keys(database: Path) -> list[str]:
    """Every evaluated key, in order; none while the tables are not there yet."""
    return rows(database, "SELECT key FROM nas_evaluations ORDER BY id")


def complete(database: Path) -> list[str]:
    return rows(database, "SELECT key FROM nas_evaluations WHERE status = 'complete' ORDER BY id")


def rows(database: Path, query: str) -> list[str]:
    if not database.is_file():
        return []
    connection = sqlite3.connect(database, timeout=30)
    try:
        return [row[0] for row in connection.execute(query)]
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["search", "--space", "pokcet"], "did you mean 'pocket'", 2),
        (["search", "--device", "iphone-15-pro"], "cannot be estimated", 2),
        (["search", "--runtime", "onnxruntim"], "did you mean 'onnxruntime'", 2),
        (["search", "--dtype", "int8"], "torch-eager has no dtype 'int8'", 2),
        (["search", "--workload", "vqa-shrt"], "did you mean 'vqa-short'", 2),
        (["search", "--constraint", "latency_mss <= 3"], "did you mean 'latency_ms'", 2),
        (["search", "--constraint", "latency_ms <= -3"], "must be positive", 2),
        (["search", "--trials", "0"], "trials", 2),
        (["search", "--set", "space.axes.encoder=[conv-mirco]", "--space", "micro"], "did you mean 'conv-micro'", 2),
        (["search", "--storage", "postgresql://127.0.0.1:1/none", "--space", "micro"], "does not answer", 2),
        (["search", "--out", "/proc/none", "--space", "micro"], "cannot make the run folder", 2),
        (["search", "--storage", "foo", "--space", "micro"], "must be a database URL", 2),
        (["search", "--cluster", "foo", "--space", "micro"], "must be HOST:PORT", 2),
        (["search", "--cluster", "127.0.0.1:1", "--space", "micro"], "no Ray cluster answers", 2),
        (["search", "--set", "proxies=[synfolw]", "--space", "micro"], "did you mean 'synflow'", 2),
        (["search", "--from", "nowhere", "--space", "micro"], "no run at", 2),
        (["search", "--space", "micro", "--constraint", "params <= 10"], "'params <= 10' is missed by", 3),
        (["report", "nowhere"], "no run at", 2),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(tmp_path: Path, arguments: list[str], message: str, code: int) -> None:
    done = nas(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    if code == 2:
        assert not (tmp_path / "runs").exists()


def test_an_unknown_key_of_a_run_file_names_the_near_miss(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"spaces": "micro"}), encoding="utf-8")
    done = nas("search", str(file), cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'space'" in done.stderr


def test_every_flag_of_a_search_reaches_its_settings(finished: Path, tmp_path: Path) -> None:
    named = tmp_path / "named.yaml"
    named.write_text(yaml.safe_dump(search_spaces.load("micro").baseline_candidate.to_dict()), encoding="utf-8")
    flags = {
        "device": "raspberry-pi-5-8gb", "runtime": "onnxruntime", "dtype": "int8", "workload": "video",
        "objective": "ttft_ms", "constraint": "params <= 9", "trials": "7", "timeout": "8s", "workers": "2",
        "seed": "3", "sampler": "tpe", "cluster": "127.0.0.1:1", "study": "other", "out": "elsewhere", "anchors": "6",
        "finalists": "4", "rungs": "3", "train-steps": "5", "from": str(finished / "runs" / "first"),
        "candidate": str(named),
    }  # fmt: skip
    given = [part for name, value in flags.items() for part in (f"--{name}", value)]
    done = nas("search", "--space", "micro", *given, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    settings = yaml.safe_load(done.stdout)
    reached = {str(one) for value in settings.values() for one in (value if isinstance(value, list) else [value])}
    assert settings["timeout_s"] == 8 and Path(settings["start_from"]).samefile(flags["from"])
    assert set(flags.values()) - reached <= {"8s", flags["from"]}
    assert settings["rungs"] == 3 and settings["candidates"] == [str(named)]


def test_a_dry_run_prints_the_resolved_settings_and_makes_nothing(tmp_path: Path) -> None:
    done = nas("search", "--space", "micro", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["space"] == "micro"
    assert not list(tmp_path.iterdir())


def test_resume_with_other_settings_is_refused(finished: Path) -> None:
    done = nas("search", "--space", "pocket", "--resume", "--study", "first", cwd=finished)
    assert done.returncode == 2
    assert "was searched with space='micro'" in done.stderr


def test_a_run_goes_on_with_more_trials(finished: Path) -> None:
    arguments = ["--space", "micro", "--finalists", "0", "--trials", "8", "--study", "first", "--resume"]
    done = nas("search", *arguments, "--json", cwd=finished)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["complete"] == 8
