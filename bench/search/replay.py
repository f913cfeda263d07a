"""Samplers over the micro-VLM table for three devices: `python bench/search/replay.py` prints and writes replay.json.

The same as `nas search --replay bench/search/microvlm.csv --objective quality --objective latency_ms@DEVICE` for each
device, but that Optuna's GP stops at 50 evaluations, since it takes long to propose a later one. About half an hour;
`--samplers funnel --evaluations 25 50 100` runs a part, and writes nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from nas.search.replay import compare
from nas.search.table import read

HERE = Path(__file__).parent
DEVICES = ("here", "raspberry-pi-5-8gb", "jetson-orin-nano-8gb")
CHEAP, BUDGETS, SLOW_BUDGETS = ("funnel", "tpe", "nsga2", "nsga3"), (25, 50, 100, 200), (25, 50)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--samplers", nargs="+", default=[*CHEAP, "gp"])
    arguments.add_argument("--evaluations", type=int, nargs="+", default=BUDGETS)
    given = arguments.parse_args()
    documents: dict[str, dict[str, Any]] = {}
    for device in DEVICES:
        table = read(HERE / "microvlm.csv", ["quality", f"latency_ms@{device}"])
        cheap = [name for name in given.samplers if name != "gp"]
        documents[device] = compare(table, cheap, given.evaluations)
        if "gp" in given.samplers:
            rows = compare(table, ["gp"], SLOW_BUDGETS)["results"]
            documents[device]["results"] += [row for row in rows if row["sampler"] == "gp"]
        show(device, documents[device]["results"])
    if given.samplers == [*CHEAP, "gp"] and tuple(given.evaluations) == BUDGETS:
        (HERE / "replay.json").write_text(json.dumps(documents, indent=1), encoding="utf-8")


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
