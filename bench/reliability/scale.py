"""10,000 trials over 64 simulated workers in replay, and how the driver's memory grows with the trials.

    python bench/reliability/scale.py --sampler nsga2 --trials 1250 2500 5000 10000

The table is made up: 16,384 designs over seven axes, an evaluation of 30 to 300 virtual seconds. Each budget runs in a
process of its own; its peak memory stands beside that of a run of ten trials.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import multiprocessing
import random
import resource
import tempfile
import time
from pathlib import Path

AXES = {name: [1, 2, 3, 4] for name in ("a1", "a2", "a3", "a4", "a5", "a6", "a7")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sampler", default="nsga2")
    parser.add_argument("--trials", type=int, nargs="+", default=[1250, 2500, 5000, 10_000])
    parser.add_argument("--workers", type=int, default=64)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "table.csv"
        make(file)
        for budget in [10, *asked.trials]:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(json.dumps(pool.apply(measure, (file, asked.sampler, budget, asked.workers))), flush=True)


def make(file: Path) -> None:
    generator = random.Random(0)
    with file.open("w", newline="", encoding="utf-8") as opened:
        rows = csv.writer(opened)
        rows.writerow([*AXES, "quality", "latency_ms", "seconds"])
        for values in itertools.product(*AXES.values()):
            size = sum(values)
            rows.writerow(
                [*values, size + generator.gauss(0, 2), size * generator.uniform(1, 3), generator.uniform(30, 300)]
            )


def measure(file: Path, sampler: str, budget: int, workers: int) -> dict[str, object]:
    """In a process of its own: its peak memory is that of one run."""
    from nas.search.replay import simulate
    from nas.search.table import read

    table = read(file, ("quality", "latency_ms"), tuple(AXES))
    start = time.perf_counter()
    found = simulate(table, sampler, 0, budget, workers)
    return {
        "sampler": sampler, "workers": workers, "trials": len(found.places), "distinct": len(set(found.places)),
        "virtual_h": round(found.finished_s[-1] / 3600, 2), "real_s": round(time.perf_counter() - start, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }  # fmt: skip


if __name__ == "__main__":
    main()
