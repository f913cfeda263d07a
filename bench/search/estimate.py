"""Expected against taken time of three searches: `OMP_NUM_THREADS=1 python bench/search/estimate.py [SHAPE ...]`.

Searches of `micro` and `pocket` on an estimated device, with finalists and with anchors. What a search takes is counted
in seconds of the processor, in one thread: on a quiet machine these are the seconds of the clock. The pace that earlier
searches left in the cache folder (NAS_CACHE) is used and learnt as in any search.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import hardware_profiles
from nas import config as configs
from nas import run_folder
from nas.config import SearchConfig
from nas.search import session
from nas.search.expectation import Pace, expected_s
from nas.search.run import run
from nas.search.session import Listener
from search_spaces import Candidate

DEVICE = "raspberry-pi-5-8gb"
SHAPES: dict[str, dict[str, Any]] = {
    "trials-and-finalists": {"space": "micro", "trials": 40, "finalists": 2, "train_steps": 60, "train_images": 200},
    "anchors": {"space": "micro", "trials": 20, "anchors": 6, "finalists": 2, "train_steps": 60, "train_images": 200},
    "pocket": {"space": "pocket", "trials": 20, "finalists": 2, "train_steps": 20, "train_images": 60},
}


def main() -> None:
    for name in sys.argv[1:] or SHAPES:
        found: list[float] = []

        def told(pace: Pace, allowed: list[Candidate], found: list[float] = found) -> tuple[float, float]:
            expected = expected_s(pace, allowed)
            found[:] = [sum(expected), time.process_time()]
            return expected

        session.expected_s = told
        with tempfile.TemporaryDirectory() as out:
            config = SearchConfig(devices=[DEVICE], constraints=[], study=name, out=out, **SHAPES[name])
            folder = run_folder.create(Path(out), name)
            folder.write(run_folder.CONFIG, configs.dump(config))
            folder.write(f"devices/{DEVICE}.yaml", hardware_profiles.dump(hardware_profiles.load(DEVICE)))
            run(config, folder, Listener())
        took = time.process_time() - found[1]
        print(
            f"{name:21} expected {found[0]:6.1f} s, took {took:6.1f} s: a factor of {took / found[0]:.2f}", flush=True
        )


if __name__ == "__main__":
    main()
