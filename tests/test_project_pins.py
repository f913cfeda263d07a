"""Every dependency is pinned to one version, so that what is installed can be audited and listed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PIN = re.compile(r"^([A-Za-z0-9._-]+)==[A-Za-z0-9.+!_-]+$")


def test_every_line_of_the_constraints_is_one_version() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert [line for line in lines if not PIN.match(line)] == []


def test_every_dependency_of_the_project_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {
        re.split(r"[\[<>=;, ]", each)[0]
        for each in sum(project["optional-dependencies"].values(), project["dependencies"])
    }
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    known = {_plain(found[1]) for line in pinned if (found := PIN.match(line))}
    assert {name for name in wanted if _plain(name) not in known} == set()


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
