"""Trials a second by one worker in process and by two of Ray, in turn: `python bench/search/workers.py [--trials 240]`.

Proxy-only trials of `pocket` on an estimated device, the same candidates both times; counted without the first WARM, in
which the workers warm up. Each run has a process of its own, for a process remembers what it loaded; the first
may still fill the cache folder, where the later ones find what encoders make of the probe. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import hardware_profiles
from nas import config as configs
from nas import run_folder
from nas.config import SearchConfig
from nas.search.run import run
from nas.search.session import Listener

WARM = 40  # trials that are not counted: by then each worker has imported its libraries and met each encoder
ROUNDS = 3
DEVICE = "raspberry-pi-5-8gb"


def ends(workers: int, trials: int, out: Path) -> list[float]:
    """When each trial ended, in seconds after the start."""
    study = f"workers-{workers}"
    config = SearchConfig(space="pocket", devices=[DEVICE], constraints=[], trials=trials, finalists=0, workers=workers,
                          sampler="random", study=study, out=str(out))  # fmt: skip
    folder = run_folder.create(out, study)
    folder.write(run_folder.CONFIG, configs.dump(config))
    folder.write(f"devices/{DEVICE}.yaml", hardware_profiles.dump(hardware_profiles.load(DEVICE)))
    found: list[float] = []
    start = time.perf_counter()
    run(config, folder, Listener(trial=lambda *_: found.append(time.perf_counter() - start)))
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--trials", type=int, default=240)
    given = arguments.parse_args()
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for workers, found in rates.items():
            with tempfile.TemporaryDirectory() as folder, get_context("spawn").Pool(1) as alone:
                times = alone.apply(ends, (workers, given.trials, Path(folder)))
            found.append((len(times) - WARM) / (times[-1] - times[WARM - 1]))
            print(
                f"{workers} worker(s): first trial after {times[0]:.1f} s, {found[-1]:.2f} trials a second", flush=True
            )
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    print(f"two workers to one, round by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()
