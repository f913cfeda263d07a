"""Searches of the space `micro` as processes of their own, and what they leave in their stores.

Latency is estimated from a datasheet, so that two runs can be compared; nothing is trained, so that one is short.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

ROOT = Path(__file__).parents[2]
STUDY = "study"


def search(trials: int, *more: str) -> list[str]:
    """Arguments of a search."""
    return [
        "search", "--space", "micro", "--device", "raspberry-pi-5-8gb", "--trials", str(trials), "--finalists", "0",
        "--seed", "1", "--study", STUDY, *more,
    ]  # fmt: skip


RESUME = ["resume", f"runs/{STUDY}"]


def begin(folder: Path, arguments: list[str], **environment: str) -> subprocess.Popen[bytes]:
    """The program at work in the folder; what it says is added to `said.txt` there."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "said.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "cli.main", *arguments], cwd=folder, stdout=log, stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )  # fmt: skip


def said(folder: Path) -> str:
    """By all programs in the folder, so far."""
    file = folder / "said.txt"
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def run(folder: Path, arguments: list[str], **environment: str) -> tuple[int, str]:
    """Exit code of the program, and what it said."""
    before = len(said(folder))
    code = begin(folder, arguments, **environment).wait(timeout=600)
    return code, said(folder)[before:]


def database(folder: Path) -> str:
    """URL of the store that a search makes for itself."""
    return f"sqlite:///{folder}/runs/{STUDY}/study.db"


@dataclass(frozen=True)
class Stored:
    """What a store holds: keys in order, scores, failures, keys and states of Optuna's trials."""

    keys: list[str]
    scores: dict[str, dict[str, float | None]]
    failed: list[str]
    optuna_keys: list[str]
    states: set[str]

    def same_evaluations(self, other: Stored) -> bool:
        return (self.keys, self.scores, self.failed) == (other.keys, other.scores, other.failed)


def stored(url: str) -> Stored:
    """Read directly, and not by the program that is examined."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT record FROM nas_evaluations ORDER BY id")).scalars()
            records = [json.loads(row) for row in rows]
            told = text("SELECT value_json FROM trial_user_attributes WHERE key = 'key'")
            optuna_keys = [json.loads(row) for row in connection.execute(told).scalars()]
            states = connection.execute(text("SELECT DISTINCT state FROM trials")).scalars()
            return Stored(
                keys=[record["key"] for record in records],
                scores={one["key"]: {name: s["value"] for name, s in one["proxies"].items()} for one in records},
                failed=[record["error"] for record in records if record["status"] == "failed"],
                optuna_keys=optuna_keys,
                states={str(state) for state in states},
            )
    finally:
        engine.dispose()


def front(folder: Path) -> list[str]:
    """Keys of the front as it was reported."""
    found = json.loads((folder / "runs" / STUDY / "front.json").read_text(encoding="utf-8"))
    return sorted(entry["key"] for entry in found["front"])


def count(url: str) -> int:
    """Evaluations that are stored; 0 where there is no store yet."""
    if url.startswith("sqlite") and not Path(url.removeprefix("sqlite:///")).is_file():
        return 0
    try:
        return len(stored(url).keys)
    except SQLAlchemyError:
        return 0


def wait_until(true: Callable[[], bool], process: subprocess.Popen[bytes], most_s: float = 300) -> bool:
    """Whether it came true before the process ended or the time was up."""
    deadline = time.monotonic() + most_s
    while process.poll() is None and time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.05)
    return False
