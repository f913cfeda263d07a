"""Samplers over the micro-VLM table for three devices: `python bench/search/replay.py` prints and writes replay.json.

The same as `nas search --replay bench/search/microvlm.csv --objective quality --objective latency_ms@DEVICE` for each
device, but that Optuna's GP stops at 50 evaluations, since it takes long to propose a later one. About half an hour.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nas.search.replay import compare
from nas.search.table import read

HERE = Path(__file__).parent
DEVICES = ("here", "raspberry-pi-5-8gb", "jetson-orin-nano-8gb")
CHEAP, BUDGETS, SLOW_BUDGETS = ("funnel", "tpe", "nsga2", "nsga3"), (25, 50, 100, 200), (25, 50)


def main() -> None:
    tables = {device: read(HERE / "microvlm.csv", ["quality", f"latency_ms@{device}"]) for device in DEVICES}
    documents: dict[str, dict[str, Any]] = {}
    for device, table in tables.items():
        documents[device] = compare(table, CHEAP, BUDGETS)
        show(device, documents[device]["results"])
    for device, table in tables.items():
        rows = [row for row in compare(table, ["gp"], SLOW_BUDGETS)["results"] if row["sampler"] == "gp"]
        documents[device]["results"] += rows
        show(device, rows)
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
