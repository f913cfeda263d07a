"""10,000 trials are written to PostgreSQL while eight readers and a dashboard look at them.

    python bench/reliability/readers.py --trials 10000 --readers 8

Writes what a search writes a trial (our table, then Optuna's study) with made-up evaluations, from one process; every
reader is a process that reads the whole study again and again, as `nas report` does. Prints the rate in blocks of a
thousand trials, whether every reader saw the study grow, and how much the writer's memory grew.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path

import psutil
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import postgres_server
from stored_runs import evaluation

import hardware_profiles
import search_spaces
from nas.config import SearchConfig
from nas.run_folder import CONFIG, RunFolder
from nas.search import board
from nas.search.archive import Archive
from nas.search.problem import define
from nas.store import Store

DEVICE = "raspberry-pi-5-8gb"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument(
        "--most-minutes", type=float, default=15, help="fewer trials are written where that is too short"
    )
    asked = parser.parse_args()
    with postgres_server.running() as server, tempfile.TemporaryDirectory() as name:
        url, context = server.make("many"), multiprocessing.get_context("spawn")
        folder = run_folder(Path(name), url)
        Store(url).close()
        done, seen = context.Event(), context.Queue()
        readers = [context.Process(target=read, args=(url, folder.study, done, seen)) for _ in range(asked.readers)]
        for reader in readers:
            reader.start()
        looked = context.Queue()
        watcher = context.Process(target=watch, args=(folder.path, done, looked))
        try:
            lines, written = write(folder, url, asked.trials, watcher, 60 * asked.most_minutes)
        finally:
            done.set()
        answers = looked.get(timeout=120)
        watcher.join()
        counts = [seen.get(timeout=120) for _ in readers]
        for reader in readers:
            reader.join()
        store = Store(url)
        stored = store.evaluations(folder.study)
        store.close()
    print("\n".join(lines))
    summary = {
        "written": written, "stored": len(stored), "distinct": len({one.key for one in stored}), "reads by reader": [len(c) for c in counts],
        "every reader saw it grow": all(c == sorted(c) and c[-1] > c[0] for c in counts),
        "answers of the dashboard": len(answers), "slowest s": round(max(answers, default=0.0), 1),
    }  # fmt: skip
    print(json.dumps(summary))
    return 0 if len(stored) == written == summary["distinct"] and summary["every reader saw it grow"] else 1


def run_folder(place: Path, url: str) -> RunFolder:
    folder = RunFolder(place / "many")
    config = SearchConfig(space="micro", devices=[DEVICE], study="many", storage=url)
    folder.write(CONFIG, yaml.safe_dump(config.model_dump(mode="json")))
    folder.write(f"devices/{DEVICE}.yaml", hardware_profiles.dump(hardware_profiles.load(DEVICE)))
    return folder


def write(
    folder: RunFolder, url: str, trials: int, watcher: multiprocessing.process.BaseProcess, most_s: float
) -> tuple[list[str], int]:
    """As a driver does; the candidates of `micro` over and over, each under a key of its own. How many there were."""
    candidates = search_spaces.load("micro").candidates
    problem = define(SearchConfig(space="micro", devices=[DEVICE]))
    store, archive = Store(url), Archive(problem, url, folder.study)
    lines, begun, number = [], time.monotonic(), -1
    start = begun
    for number in range(trials):
        made = replace(evaluation(candidates[number % len(candidates)], DEVICE, 1.0 + number % 7), key=f"{number:012x}")
        store.add_evaluation(folder.study, made)
        archive.add(made)
        if number == 10:
            watcher.start()
        if (number + 1) % max(1, trials // 10) == 0:
            spent = time.monotonic() - start
            resident = psutil.Process().memory_info().rss / 2**20
            lines.append(f"{number + 1:>6} trials  {trials // 10 / spent:6.1f} a second  writer {resident:5.0f} MiB")
            print(lines[-1], file=sys.stderr, flush=True)
            start = time.monotonic()
        if time.monotonic() - begun > most_s:
            break
    store.close()
    return lines, number + 1


def read(url: str, study: str, done: Event, seen: multiprocessing.Queue[list[int]]) -> None:
    """How many evaluations were there, each time."""
    store, counts = Store(url), []
    while not done.is_set():
        counts.append(len(store.evaluations(study)))
        done.wait(15)
    counts.append(len(store.evaluations(study)))
    store.close()
    seen.put(counts)


def watch(path: Path, done: Event, looked: multiprocessing.Queue[list[float]]) -> None:
    """The dashboard's own pages, as a browser asks for them: how long each answer took."""
    found = []
    with board.open_server(RunFolder(path), 0) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
        serving.start()
        url = f"http://127.0.0.1:{server.server_port}/api/studies/1?after=0"
        while not done.wait(10):
            asked = time.monotonic()
            with urllib.request.urlopen(url, timeout=120) as page:
                json.load(page)
            found.append(time.monotonic() - asked)
        server.shutdown()
        serving.join()
    looked.put(found)


if __name__ == "__main__":
    raise SystemExit(main())
