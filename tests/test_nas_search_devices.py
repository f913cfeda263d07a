"""A whole search whose device dies in the middle: what it measured counts, the rest waits and is asked for again."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from runner_requests import here

from nas import report
from nas.config import SearchConfig
from nas.errors import RefusalError, RunnerError
from nas.records import NO_LATENCY
from nas.run_folder import RunFolder, create
from nas.search.run import run
from nas.search.session import Listener

# A stand-in for adb that runs the shell command here and lives as its plan says, one word a start: `whole` to the end;
# `group` until the first group of blocks is measured; `gone` not at all.
# The last word holds for every later start.
ADB = """#!{python}
import pathlib, subprocess, sys
plan = pathlib.Path({plan!r})
word, *rest = plan.read_text().split()
plan.write_text(" ".join(rest or [word]))
if word == "gone":
    sys.exit("error: device offline")
process = subprocess.Popen(["sh", "-c", sys.argv[5]], stdout=subprocess.PIPE)
for line in process.stdout:
    sys.stdout.buffer.write(line)
    sys.stdout.flush()
    if word == "group" and b'"timings"' in line:
        process.kill()
        sys.exit("error: device offline")
sys.exit(process.wait())
"""


class Phone:
    """A device behind the stand-in, and the search on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.plan, self.said = folder, folder / "plan", list[str]()
        self.pauses: list[float] = []
        program = folder / "adb"
        program.write_text(ADB.format(python=sys.executable, plan=str(self.plan)), encoding="utf-8")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        phones = {"phones": {"pixel": {"serial": "ABC123", "python": sys.executable}}}
        (folder / "hosts.yaml").write_text(yaml.safe_dump(phones), encoding="utf-8")
        profile = here(kind="adb", serial_ref="pixel").model_dump(mode="json", by_alias=True)
        (folder / "pixel.yaml").write_text(
            yaml.safe_dump(profile | {"id": "pixel", "protocol": {"rounds": 3}}), encoding="utf-8"
        )

    def search(self, plan: str, trials: int) -> tuple[RunFolder, dict[str, Any]]:
        """The folder and the report's document."""
        self.plan.write_text(plan, encoding="utf-8")
        config = SearchConfig(
            space="micro", devices=[str(self.folder / "pixel.yaml")], trials=trials, finalists=0, proxies=["params"],
            constraints=[],
        )  # fmt: skip
        made = create(self.folder / "runs", "dying")
        made.write("config.resolved.yaml", yaml.safe_dump(config.model_dump(mode="json")))
        (made.path / "devices").mkdir()
        (made.path / "devices" / "pixel.yaml").write_bytes((self.folder / "pixel.yaml").read_bytes())
        run(config, made, Listener(say=self.said.append), self.pauses.append)
        return made, report.document(made)

    def heard(self, beginning: str) -> list[str]:
        return [line for line in self.said if line.startswith(beginning)]


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("NAS_HOSTS", str(tmp_path / "hosts.yaml"))
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    return Phone(tmp_path)


def test_candidates_of_a_device_that_comes_back_join_the_search(phone: Phone) -> None:
    _, found = phone.search("whole group gone gone whole", trials=14)
    assert phone.pauses == [2.0, 4.0]
    (waiting,) = phone.heard("unmeasured")
    assert waiting.endswith(f"candidates have no latency: {NO_LATENCY}")
    assert 0 < int(waiting.split()[1]) < found["search"]["space_size"]
    before, *_, again = phone.heard("latency      pixel: ")
    assert "blocks are to be measured, about" in before and "answers again" in again
    assert found["counts"]["complete"] == 14 and found["counts"]["unmeasured"] == 0
    assert {entry["latency"]["pixel"]["label"] for entry in found["front"]} == {"composed"}


def test_a_search_goes_on_without_a_device_that_stays_dead_and_its_report_says_so(phone: Phone) -> None:
    made, found = phone.search("whole group gone", trials=12)
    waiting = found["counts"]["unmeasured"]
    assert 0 < waiting < found["search"]["space_size"]
    assert found["counts"]["complete"] == 12
    text = (made.path / "report.md").read_text(encoding="utf-8")
    assert f"{waiting} without latency ({NO_LATENCY})" in text


def test_a_device_that_never_answered_ends_the_search_in_one_line(phone: Phone) -> None:
    with pytest.raises(RunnerError, match=r"phone 'pixel' gave no answer: error: device offline; see that it is on"):
        phone.search("gone", trials=2)
    assert phone.pauses == [2.0, 4.0]


def test_what_would_be_refused_again_is_not_asked_again(phone: Phone) -> None:
    """A phone that is another device than its profile says."""
    profile = yaml.safe_load((phone.folder / "pixel.yaml").read_text(encoding="utf-8"))
    profile["identity"]["match"]["name_regex"] = "no such phone"
    (phone.folder / "pixel.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    with pytest.raises(RefusalError, match="is not device 'pixel'"):
        phone.search("whole", trials=2)
    assert phone.pauses == []
