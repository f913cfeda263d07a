"""What the machinery costs: `python bench/search/overhead.py [--trials 2000] [--profile]`. Needs a quiet machine.

One search of `pocket` at one worker with SQLite whose trials are given an outcome at once, so that all time between two
trials is the driver's: proposing, recording, storing, telling, publishing. Beside it plain Optuna with the same sampler
on the same axes, with SQLite, as it comes and with the settings that a run's database has (no wait for the disk). The
first run imports, and measures the blocks of `pocket` (about half a minute), which is not counted.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import tempfile
import time
from pathlib import Path

import numpy as np
from optuna.storages import RDBStorage

import hardware_profiles
import nas.search.trials
from nas import run_folder
from nas.config import SearchConfig
from nas.records import ProxyScore
from nas.search.evaluate import Outcome, Task
from nas.search.run import run
from nas.search.session import Listener
from nas.store import optuna_storage

SAMPLER = "nsga2"
HERE = Path(__file__).parent


def instant(task: Task) -> Outcome:
    return Outcome(task.candidate.key, {name: ProxyScore(1.0, 0.0) for name in task.proxies}, 0.0)


def ours(trials: int, out: Path, device: str) -> tuple[list[float], float]:
    """Milliseconds between trials, and seconds from the start to the first of them."""
    nas.search.trials.evaluate = instant
    config = SearchConfig(
        space="pocket",
        devices=[device],
        constraints=[],
        trials=trials,
        finalists=0,
        sampler=SAMPLER,
        study="ours",
        out=str(out),
    )
    folder = run_folder.create(out, "ours")
    folder.write(run_folder.CONFIG, json.dumps(config.model_dump(mode="json")))
    profile = hardware_profiles.load(device)
    folder.write(f"devices/{profile.id}.yaml", hardware_profiles.dump(profile))
    ends: list[float] = []
    start = time.perf_counter()
    run(config, folder, Listener(trial=lambda *_: ends.append(time.perf_counter())))
    return [1e3 * step for step in np.diff(ends)], ends[0] - start


def plain(trials: int, storage: str | RDBStorage) -> list[float]:
    """Milliseconds a trial of Optuna alone."""
    import optuna

    import search_spaces
    from nas.search.proposer import POPULATION

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    axes = search_spaces.load("pocket").axes
    sampler = optuna.samplers.NSGAIISampler(seed=0, population_size=POPULATION)
    study = optuna.create_study(storage=storage, directions=["maximize", "minimize"], sampler=sampler)
    generator, ends = np.random.default_rng(0), [time.perf_counter()]
    for _ in range(trials):
        trial = study.ask()
        for axis, values in axes.items():
            trial.suggest_categorical(axis, values)
        study.tell(trial, generator.random(2).tolist())
        ends.append(time.perf_counter())
    return [1e3 * step for step in np.diff(ends)]


def summary(name: str, steps: list[float]) -> str:
    late = steps[-100:]
    return (
        f"{name:24} median {np.median(steps):6.1f} ms  mean {np.mean(steps):6.1f}  90 % below {np.quantile(steps, 0.9):6.1f}"
        f"   last 100: median {np.median(late):6.1f}  mean {np.mean(late):6.1f}"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--trials", type=int, default=2000)
    arguments.add_argument("--device", default="local", help="another one is estimated, and nothing is measured")
    arguments.add_argument("--profile", action="store_true", help="print where the driver's time goes")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        ours(2, out / "warm", given.device)  # imports, and blocks that are not measured yet
        watch = cProfile.Profile()
        if given.profile:
            watch.enable()
        steps, first_s = ours(given.trials, out, given.device)
        watch.disable()
        print(
            f"{given.trials} trials of pocket, sampler {SAMPLER}, SQLite, one worker; first trial after {first_s:.2f} s"
        )
        print(summary("nas search", steps))
        print(summary("plain Optuna", plain(given.trials, f"sqlite:///{out}/plain.db")))
        print(summary("plain Optuna, our SQLite", plain(given.trials, optuna_storage(f"sqlite:///{out}/tuned.db"))))
        if given.profile:
            pstats.Stats(watch).sort_stats("cumulative").print_stats(45)


if __name__ == "__main__":
    main()
