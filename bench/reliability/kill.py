"""Kills running searches at random moments, resumes them, and checks that nothing was lost or done twice.

    python bench/reliability/kill.py                       # fifty kills, a kind after the other
    python bench/reliability/kill.py --kinds worker head --kills 4

Kinds: `driver` (one worker, in the driver's process), `driver-of-two` (with a Ray cluster of its own), and, on a Ray
cluster of one node with one worker: `worker`, and `head` (every process of the node at once; it is then started again).
A round is one search, killed up to five times and resumed until it ends by itself. Exit code 1 where a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from searches import RESUME, STUDY, Stored, begin, count, database, front, said, search, stored, wait_until

KILLS = {"driver": 20, "driver-of-two": 10, "worker": 10, "head": 10}
KILLS_A_ROUND = 5
PORT = 6388
ADDRESS = f"127.0.0.1:{PORT}"
STUCK_S = 180
MARK = "NAS_KILL_BENCH"  # in the environment of all that this starts
NO_LOGIN = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KILLS, default=list(KILLS))
    parser.add_argument("--kills", type=int, help="of each kind; else 20, 10, 10 and 10")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--most-minutes", type=float, default=40, help="no new round after that")
    asked = parser.parse_args()
    deadline, wrong = time.monotonic() + 60 * asked.most_minutes, 0
    with tempfile.TemporaryDirectory(prefix="nas-kill-") as name:
        os.environ[MARK] = name
        for kind in asked.kinds:
            bench = Bench(kind, Path(name) / kind, asked.trials, random.Random(f"{kind} {asked.seed}"))
            found = bench.run(asked.kills or KILLS[kind], deadline)
            print(json.dumps(found), flush=True)
            wrong += len(found["wrong"])
        time.sleep(3)
        left = processes_of(name)
        print(json.dumps({"processes left": [process.name() for process in left]}))
    return 1 if wrong or left else 0


@dataclass
class Bench:
    """Rounds of one kind."""

    kind: str
    place: Path
    trials: int
    random: random.Random
    whole_s: float = 0.0  # how long the undisturbed search takes

    def run(self, most: int, deadline: float) -> dict[str, object]:
        started, kills, rounds = time.monotonic(), 0, 0
        wrong: list[str] = []
        with self.node() as node:
            self.node_now = node
            undisturbed = self.place / "undisturbed"
            assert begin(undisturbed, self.search, **NO_LOGIN).wait() == 0, said(undisturbed)
            self.whole_s = time.monotonic() - started
            truth = stored(database(undisturbed))
            while kills < most and time.monotonic() < deadline:
                rounds += 1
                folder = self.place / f"round-{rounds}"
                done = self.round(folder, min(KILLS_A_ROUND, most - kills))
                found = self.check(folder, truth, front(undisturbed))
                kills, wrong = kills + done, wrong + found
                verdict = "; ".join(found) or "holds"
                print(f"{self.kind} round {rounds}: {done} kills, {verdict}", file=sys.stderr, flush=True)
        minutes = round((time.monotonic() - started) / 60, 1)
        return {
            "kind": self.kind,
            "kills": kills,
            "rounds": rounds,
            "trials": self.trials,
            "wrong": wrong,
            "minutes": minutes,
        }

    @property
    def search(self) -> list[str]:
        if self.on_cluster:
            return search(self.trials, "--cluster", ADDRESS)
        return search(self.trials, "--workers", "2" if self.kind == "driver-of-two" else "1")

    @property
    def on_cluster(self) -> bool:
        return self.kind in ("worker", "head")

    def round(self, folder: Path, most: int) -> int:
        """Runs one search to its end with at most so many kills; how many there were."""
        kills, process = 0, begin(folder, self.search, **NO_LOGIN)
        while True:
            before = count(database(folder))
            while kills < most and self.wait(process, folder, before):
                before = count(database(folder))
                kills += self.kill(process)
                if self.kind != "worker":
                    break
            try:
                process.wait(STUCK_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return self.note(folder, "STUCK", kills)
            if process.returncode == 0:
                return kills
            if self.kind == "worker":
                return self.note(folder, f"ENDED with exit code {process.returncode}", kills)
            if self.kind == "head":
                stop(self.node_now)
                self.node_now = start()
            process = begin(folder, RESUME if made(folder) else self.search, **NO_LOGIN)

    def wait(self, process: subprocess.Popen[bytes], folder: Path, before: int) -> bool:
        """Until a random moment; of a cluster's node, one after a trial of this session has ended, since Ray starts
        slowly. Whether the search still goes on."""
        if (self.kind != "driver" and self.random.random() < 0.8) or self.on_cluster:
            wait_until(lambda: count(database(folder)) > before, process)
            moment = self.random.uniform(0, 3)
        else:
            moment = self.random.uniform(0.5, self.whole_s)
        wait_until(lambda: False, process, moment)
        return process.poll() is None

    def kill(self, process: subprocess.Popen[bytes]) -> int:
        """By SIGKILL; 1 where there was something to kill."""
        if not self.on_cluster:
            process.kill()
            return 1
        victims = psutil.Process(self.node_now.pid).children(recursive=True)
        if self.kind == "worker":
            victims = [victim for victim in victims if "ray::_Worker" in title(victim)][:1]
        for victim in victims:
            victim.kill()
        return int(bool(victims))

    def note(self, folder: Path, word: str, kills: int) -> int:
        with (folder / "said.txt").open("a", encoding="utf-8") as log:
            log.write(f"{word}\n")
        return kills

    def check(self, folder: Path, truth: Stored, true_front: list[str]) -> list[str]:
        """What does not hold."""
        found, text = stored(database(folder)), said(folder)
        claims = {
            "an evaluation is there twice": len(found.keys) == len(set(found.keys)),
            f"{len(found.keys)} of {len(truth.keys)} evaluations": len(found.keys) == len(truth.keys),
            "Optuna's trials are not the evaluations": sorted(found.optuna_keys) == sorted(found.keys),
            f"zombies: {found.states}": found.states <= {"COMPLETE", "FAIL"},
            f"failed: {found.failed}": not found.failed,
            "a trace": "Traceback" not in text,
            f"stuck or ended: {text[-300:]}": "STUCK" not in text and "ENDED" not in text,
        }
        if self.kind != "driver-of-two":
            claims["other evaluations than undisturbed"] = found.same_evaluations(truth)
            claims["another front than undisturbed"] = front(folder) == true_front
        wrong = [claim for claim, holds in claims.items() if not holds]
        if wrong:
            print(text[-3000:], file=sys.stderr)
        return wrong

    @contextmanager
    def node(self) -> Iterator[subprocess.Popen[bytes] | None]:
        self.place.mkdir()
        if not self.on_cluster:
            yield None
            return
        self.node_now = start()
        try:
            yield self.node_now
        finally:
            stop(self.node_now)


def made(folder: Path) -> bool:
    return (folder / "runs" / STUDY / "config.resolved.yaml").is_file()


def start() -> subprocess.Popen[bytes]:
    """A Ray cluster of one node with one processor."""
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port", str(PORT),
        "--node-ip-address", "127.0.0.1", "--num-cpus", "1", "--include-dashboard", "false", "--disable-usage-stats",
        "--object-store-memory", str(80 * 2**20),
    ]  # fmt: skip
    quiet = subprocess.DEVNULL
    node = subprocess.Popen(command, env={**os.environ, **NO_LOGIN}, stdout=quiet, stderr=quiet)
    wait_until(lambda: any("raylet" in child.name() for child in psutil.Process(node.pid).children()), node, 60)
    time.sleep(3)
    return node


def stop(node: subprocess.Popen[bytes]) -> None:
    """The node and everything on it, at once."""
    for process in [*psutil.Process(node.pid).children(recursive=True), node] if node.poll() is None else []:
        process.kill()
    node.wait()


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def processes_of(place: str) -> list[psutil.Process]:
    """That were started by these searches and still run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == place:
                found.append(process)
        except psutil.Error:
            continue
    return found


if __name__ == "__main__":
    raise SystemExit(main())
