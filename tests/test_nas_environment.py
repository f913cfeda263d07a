"""A run folder says where its run took place, and where it went on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stored_runs import stored_run

from nas.environment import code_digest, environment
from nas.run_folder import ENV, RunFolder


def test_what_makes_two_runs_differ_is_named() -> None:
    found = environment()
    assert found["packages"]["torch"] == found["installed"]["torch"]
    assert found["code"] == code_digest() and len(found["code"]) == 16
    assert 1 <= found["usable_cores"] <= found["cores"]
    json.dumps(found)


def test_going_on_elsewhere_is_noted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stored_run(tmp_path, [])
    folder.note_environment()
    assert "later" not in read(folder)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    folder.note_environment()
    folder.note_environment()
    (later,) = read(folder)["later"]
    assert later["variables"]["MKL_NUM_THREADS"] == "7"
    assert "load_average" not in later


def read(folder: RunFolder) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder.path / ENV).read_text(encoding="utf-8"))
    return found
