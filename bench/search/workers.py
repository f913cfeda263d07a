"""Trials a second by one worker in process and by two of Ray: `python bench/search/workers.py [--trials 60]`.

Proxy-only trials of `pocket` on an estimated device, the same candidates both times; counted from the end of the trial
at which all workers had warmed up. Needs a quiet machine with two cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import hardware_profiles
from nas import config as configs
from nas import run_folder
from nas.config import SearchConfig
from nas.search.run import run
from nas.search.session import Listener

WARM = 4  # trials that are not counted
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
    arguments.add_argument("--trials", type=int, default=60)
    given = arguments.parse_args()
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, 2):
            found = ends(workers, given.trials, Path(folder))
            rates[workers] = (len(found) - WARM) / (found[-1] - found[WARM - 1])
            print(
                f"{workers} worker(s): first trial after {found[0]:.1f} s, {rates[workers]:.2f} trials a second",
                flush=True,
            )
    print(f"two workers are {rates[2] / rates[1]:.2f} times as fast as one")


if __name__ == "__main__":
    main()
