"""Kills running searches at random moments, resumes them, and checks that nothing was lost or done twice.

    python bench/reliability/kill.py --victim driver --kills 25 --trials 40
    python bench/reliability/kill.py --victim driver --workers 2 --kills 10
    python bench/reliability/kill.py --victim worker --workers 2 --kills 10
    python bench/reliability/kill.py --victim head --workers 2 --kills 5

Latency is estimated from a datasheet, so that runs can be compared. A round is one search: it is killed and resumed
until it ends by itself; as many rounds are made as the kills need. Exit code 1 where a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

DEVICE = "raspberry-pi-5-8gb"
ROOT = Path(__file__).parents[2]
MOST_KILLS_A_ROUND = 5
STUCK_S = 400


def main() -> int:
    asked = arguments()
    place = Path(tempfile.mkdtemp(prefix="nas-kill-"))
    generator, started = random.Random(asked.seed), time.monotonic()
    begin(place, "undisturbed", asked.trials, 1).wait()
    truth = state(place, "undisturbed")
    kills = rounds = 0
    wrong: list[str] = []
    while kills < asked.kills and time.monotonic() - started < asked.most_s:
        study = f"round-{rounds}"
        rounds += 1
        done = disturb(place, study, asked, min(MOST_KILLS_A_ROUND, asked.kills - kills), generator)
        kills += done
        found = check(place, study, asked, truth)
        wrong += found
        print(f"{study}: {done} kills; {'; '.join(found) or 'everything there once'}", flush=True)
    print(
        json.dumps(
            {
                "victim": asked.victim, "workers": asked.workers, "rounds": rounds, "kills": kills, "wrong": wrong,
                "trials": asked.trials, "left_processes": left(place), "minutes": round((time.monotonic() - started) / 60, 1),
            }
        )
    )  # fmt: skip
    return 1 if wrong or left(place) else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--victim", choices=["driver", "worker", "head"], default="driver")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--most-s", type=float, default=1500, help="no new round after that")
    return parser.parse_args()


def begin(place: Path, study: str, trials: int, workers: int) -> subprocess.Popen[bytes]:
    """The search, or its resumption where the study is there already."""
    made = (place / "runs" / study / "config.resolved.yaml").is_file()
    command = ["resume", f"runs/{study}"] if made else [
        "search", "--space", "micro", "--device", DEVICE, "--study", study, "--trials", str(trials),
        "--workers", str(workers), "--finalists", "0", "--seed", "1",
    ]  # fmt: skip
    with (place / f"{study}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "cli.main", *command], cwd=place, stdout=log, stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NAS_BENCH": str(place)},
        )  # fmt: skip


def disturb(place: Path, study: str, asked: argparse.Namespace, most: int, generator: random.Random) -> int:
    """Runs the study to its end with at most so many kills; how many there were."""
    kills = 0
    process = begin(place, study, asked.trials, asked.workers)
    while True:
        if kills < most:
            if asked.victim != "driver":
                wait_for_a_trial(process, place, study)
            moment = time.monotonic() + generator.uniform(*((1, 14) if asked.victim == "driver" else (0, 4)))
            while process.poll() is None and time.monotonic() < moment:
                time.sleep(0.02)
            if process.poll() is None:
                kills += kill(process, asked.victim, generator)
        try:
            process.wait(timeout=STUCK_S if kills == most or asked.victim == "driver" else 0.5)
        except subprocess.TimeoutExpired:
            if kills < most:
                continue  # a search survives the death of a worker
            process.kill()
            process.wait()
            note(place, study, "STUCK")
        if process.returncode == 0:
            return kills
        process = begin(place, study, asked.trials, asked.workers)


def wait_for_a_trial(process: subprocess.Popen[bytes], place: Path, study: str) -> None:
    """Ray takes long to start: until this session has finished one trial."""
    before = count(place, study)
    while process.poll() is None and count(place, study) == before:
        time.sleep(0.05)


def count(place: Path, study: str) -> int:
    log = place / f"{study}.log"
    return log.read_text(encoding="utf-8", errors="replace").count("\ntrial ") if log.is_file() else 0


def kill(process: subprocess.Popen[bytes], victim: str, generator: random.Random) -> int:
    """SIGKILL of the driver, of one of its Ray workers, or of the two processes that are the head; 1 where it hit."""
    if victim == "driver":
        process.kill()
        return 1
    names = ("ray::",) if victim == "worker" else (generator.choice(["raylet", "gcs_server"]),)
    found = [child for child in children(process.pid) if any(name in title(child) for name in names)]
    if not found:
        return 0
    generator.choice(found).kill()
    return 1


def children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:200] if "ray::" in " ".join(process.cmdline()) else process.name()
    except psutil.Error:
        return ""


def state(place: Path, study: str) -> dict[str, Any]:
    """What is stored: keys in order, scores, Optuna's trials, and the front."""
    folder = place / "runs" / study
    connection = sqlite3.connect(folder / "study.db")
    records = [json.loads(row[0]) for row in connection.execute("SELECT record FROM nas_evaluations ORDER BY id")]
    optuna_keys = [
        json.loads(row[0])
        for row in connection.execute("SELECT value_json FROM trial_user_attributes WHERE key = 'key'")
    ]
    states = dict(connection.execute("SELECT state, count(*) FROM trials GROUP BY state").fetchall())
    connection.close()
    front = json.loads((folder / "front.json").read_text(encoding="utf-8"))["front"]
    return {
        "keys": [record["key"] for record in records],
        "scores": {r["key"]: {n: s["value"] for n, s in r["proxies"].items()} for r in records},
        "failed": [record["error"] for record in records if record["status"] == "failed"],
        "optuna": optuna_keys,
        "states": states,
        "front": sorted(entry["key"] for entry in front),
    }


def check(place: Path, study: str, asked: argparse.Namespace, truth: dict[str, Any]) -> list[str]:
    """What does not hold."""
    found, wrong = state(place, study), []
    if len(found["keys"]) != len(set(found["keys"])) or len(found["keys"]) != len(truth["keys"]):
        wrong.append(f"{len(found['keys'])} evaluations of {len(set(found['keys']))} candidates")
    if sorted(found["optuna"]) != sorted(found["keys"]):
        wrong.append("Optuna's trials are not the evaluations")
    if set(found["states"]) - {"COMPLETE", "FAIL"}:
        wrong.append(f"zombies: {found['states']}")
    if asked.victim != "worker" and found["failed"]:  # a worker killed twice at one candidate may fail it
        wrong.append(f"failed: {found['failed']}")
    if asked.workers == 1:
        wrong += [f"other {name}" for name in ("keys", "scores", "front") if found[name] != truth[name]]
    if "Traceback" in (place / f"{study}.log").read_text(encoding="utf-8", errors="replace"):
        wrong.append(f"a trace in {place / study}.log")
    if "STUCK" in (place / f"{study}.log").read_text(encoding="utf-8", errors="replace"):
        wrong.append("got stuck")
    return wrong


def note(place: Path, study: str, word: str) -> None:
    with (place / f"{study}.log").open("a", encoding="utf-8") as log:
        log.write(f"{word}\n")


def left(place: Path) -> list[str]:
    """Processes of these searches that still run."""
    time.sleep(3)
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("NAS_BENCH") == str(place):
                found.append(process.name())
        except psutil.Error:
            continue
    return found


if __name__ == "__main__":
    raise SystemExit(main())
