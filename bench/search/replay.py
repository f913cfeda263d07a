"""Samplers over the micro-VLM table for three devices: `python bench/search/replay.py` prints what replay.txt holds.

The same as `nas search --replay bench/search/microvlm.csv --objective quality --objective latency_ms@DEVICE` for each
device. About an hour of one quiet core; `--devices here --samplers funnel --evaluations 25 50` runs a part.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nas.search.replay import BUDGETS, SAMPLERS, compare
from nas.search.table import read

HERE = Path(__file__).parent
DEVICES = ("here", "raspberry-pi-5-8gb", "jetson-orin-nano-8gb")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--devices", nargs="+", default=DEVICES)
    arguments.add_argument("--samplers", nargs="+", default=SAMPLERS)
    arguments.add_argument("--evaluations", type=int, nargs="+", default=BUDGETS)
    given = arguments.parse_args()
    for device in given.devices:
        table = read(HERE / "microvlm.csv", ["quality", f"latency_ms@{device}"])
        show(device, compare(table, given.samplers, given.evaluations)["results"])


def show(device: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{device}, 20 paired seeds")
    print(f"{'sampler':8}{'evals':>6}{'share':>8}   80 % of seeds     p above  p below  duplicates")
    for row in rows:
        tests = [row["p_above_random"], row["p_below_random"]]
        above, below = ("        -" if p is None else f"{p:9.2g}" for p in tests)
        print(f"{row['sampler']:8}{row['evaluations']:6}{row['share']:8.4f}   {row['low']:.4f} to {row['high']:.4f}"
              f"{above}{below}{row['duplicates']:6}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
