"""A Ray cluster of several nodes on this machine, without the checkout, that grows and loses a node under a search.

    python bench/reliability/cluster.py --trials 60

Runs the commands of docs/cluster.md: a head without processors, two worker nodes of one processor each whose Python
does not have this program, a search over them; then a third node joins and one of the first two is killed.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
PORT = 6399
MEMORY = str(80 * 2**20)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    asked = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="nas-cluster-"))
    bare = bare_environment(place)
    head = start(place, bare, "--head", "--port", str(PORT), "--num-cpus", "0", "--include-dashboard", "false")
    nodes = [head]
    try:
        nodes += [join(place, bare, f"worker-{number}") for number in (1, 2)]
        lacking = subprocess.run(
            [bare["python"], "-c", "import nas"], env=bare["env"], capture_output=True, check=False
        )
        search = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "search", "--space", "micro", "--device", "raspberry-pi-5-8gb",
             "--trials", str(asked.trials), "--finalists", "0", "--study", "cluster", "--workers", "3",
             "--cluster", f"127.0.0.1:{PORT}"],
            cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        wait_for(place, search, asked.trials // 4)
        nodes.append(join(place, bare, "worker-3"))
        wait_for(place, search, asked.trials // 2)
        kill(nodes[1])
        said = search.communicate(timeout=600)[0]
        found = trials(place)
        print(said[-1500:])
        summary = {
            "workers have the program": lacking.returncode == 0, "exit": search.returncode, "trials": len(found),
            "distinct": len({key for key, _ in found}), "status": Counter(status for _, status in found),
            "node added after": asked.trials // 4, "node killed after": asked.trials // 2,
        }  # fmt: skip
        print(json.dumps(summary))
        return 0 if search.returncode == 0 and summary["distinct"] == len(found) == asked.trials else 1
    finally:
        for node in nodes:
            kill(node)


def bare_environment(place: Path) -> dict[str, object]:
    """A Python with the libraries of this one, but without this program: its `.pth` files are not read."""
    import torch

    libraries = Path(str(torch.__file__)).parents[1]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "bare"], check=True)
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {
        "python": place / "bare" / "bin" / "python",
        "env": {**env, "PYTHONPATH": str(libraries), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
    }


def start(place: Path, bare: dict[str, object], *arguments: str) -> subprocess.Popen[bytes]:
    command = [
        bare["python"], "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address", "127.0.0.1",
        "--object-store-memory", MEMORY, "--disable-usage-stats", *arguments,
    ]  # fmt: skip
    with (place / "nodes.log").open("ab") as log:
        return subprocess.Popen(command, env=bare["env"], stdout=log, stderr=log, cwd=place)  # type: ignore[arg-type, call-overload]


def join(place: Path, bare: dict[str, object], name: str) -> subprocess.Popen[bytes]:
    time.sleep(5)  # the head, or the node before, is up by then
    return start(place, bare, "--address", f"127.0.0.1:{PORT}", "--num-cpus", "1", "--labels", f"node={name}")


def trials(place: Path) -> list[tuple[str, str]]:
    database = place / "runs" / "cluster" / "study.db"
    if not database.is_file():
        return []
    connection = sqlite3.connect(database)
    try:
        return connection.execute("SELECT key, status FROM nas_evaluations").fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()


def wait_for(place: Path, search: subprocess.Popen[str], count: int) -> None:
    deadline = time.monotonic() + 300
    while len(trials(place)) < count and search.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)


def kill(node: subprocess.Popen[bytes]) -> None:
    """The node and everything on it, at once."""
    try:
        for child in psutil.Process(node.pid).children(recursive=True):
            child.kill()
    except psutil.NoSuchProcess:
        return
    node.kill()
    node.wait()


if __name__ == "__main__":
    raise SystemExit(main())
