"""A run keeps copies of the files that it names: it stays what it was, and is read from anywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from test_cli_search import nas

import hardware_profiles
import search_spaces
from nas import config as configs
from nas import inputs

DEVICE = "raspberry-pi-5-8gb"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with a space, a device and two candidates of the user's own, and a blank in its name."""
    folder = tmp_path / "my files"
    (folder / "c").mkdir(parents=True)
    shutil.copy(Path(search_spaces.__file__).parent / "micro.yaml", folder / "c" / "small.yaml")
    (folder / "c" / "dev.yaml").write_text(hardware_profiles.dump(hardware_profiles.load(DEVICE)))
    for name, place in (("ok", 3), ("other/ok", 5)):
        file = folder / "c" / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump(search_spaces.load("micro").candidates[place].to_dict()))
    return folder


ASKED = [
    "--space", "c/small.yaml", "--device", "c/dev.yaml", "--candidate", "c/ok.yaml", "--candidate", "c/other/ok.yaml",
    "--constraint", "latency_ms <= 150% of c/ok.yaml", "--finalists", "0", "--trials", "4", "--study", "own",
]  # fmt: skip


def test_a_run_is_what_it_was_after_its_files_change_and_from_anywhere(mine: Path, tmp_path: Path) -> None:
    first = nas("search", *ASKED, "--json", cwd=mine)
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    assert found["constraints"] == ["latency_ms <= 150% of ok.yaml"]
    kept = configs.load(mine / "runs" / "own" / "config.resolved.yaml", {}, [])
    assert {Path(name).parent.name for name in (kept.space, *kept.devices, *kept.candidates)} == {inputs.FOLDER}
    assert [Path(name).name for name in kept.candidates] == ["ok.yaml", "ok-2.yaml"]

    space = yaml.safe_load((mine / "c" / "small.yaml").read_text())
    space["axes"]["resolution"] = [64]
    (mine / "c" / "small.yaml").write_text(yaml.safe_dump(space))
    refused = nas("search", "--resume", *ASKED, cwd=mine)
    assert refused.returncode == 2 and "was searched with space='small.yaml (" in refused.stderr

    shutil.rmtree(mine / "c")
    moved = tmp_path / "own"
    (mine / "runs" / "own").rename(moved)
    report = nas("report", str(moved), "--json", cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    assert json.loads(report.stdout)["front"] == found["front"]
    assert json.loads(report.stdout)["search"]["space_size"] == found["search"]["space_size"]

    moved.rename(tmp_path / "renamed")
    refused = nas("report", "renamed", cwd=tmp_path)
    assert refused.returncode == 2 and "holds study 'own'" in refused.stderr


def test_what_a_file_names_is_sought_beside_it_first(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mine / "run.yaml").write_text("space: c/small.yaml\nconstraints: ['latency_ms <= 50% of c/ok.yaml (soft)']\n")
    monkeypatch.chdir(mine.parent)
    found = configs.load(mine / "run.yaml", {"candidates": ["c/ok.yaml"]}, [])
    assert found.space == str(mine / "c" / "small.yaml")
    assert found.constraints == [f'latency_ms <= 50% of "{mine / "c" / "ok.yaml"}" (soft)']
    assert found.candidates == ["c/ok.yaml"]  # a flag's is sought from where the command is given
