"""The micro-VLM benchmark as a table to replay: `python bench/search/microvlm_table.py` writes microvlm.csv beside it.

A row a design of `main` and `test`, by its first seed. Quality is the trained accuracy as in bench/quality/RESULTS.md:
mean over question kinds of (accuracy - blind) / (1 - blind). `seconds` is what
training took. Latency is composed of blocks measured on this machine, and estimated for the other devices; each stands
with its interval. Measuring needs a quiet machine for about a minute.
"""

from __future__ import annotations

import csv
import json
from contextlib import closing
from pathlib import Path

import hardware_profiles
from nas import workload
from nas.cost import cost
from nas.latency.compose import compose
from nas.latency.device import Device
from nas.latency.estimate import estimate
from nas.latency.terms import needed
from nas.store import Store
from search_spaces import Candidate

REFERENCE = Path(__file__).parents[2] / "proxies" / "reference"
ELSEWHERE = ("raspberry-pi-5-8gb", "jetson-orin-nano-8gb")


def trained() -> list[dict]:
    """One row a design, its first seed."""
    blind = json.loads((REFERENCE / "microvlm.about.json").read_text(encoding="utf-8"))["blind"]
    found: dict[str, dict] = {}
    for line in (REFERENCE / "microvlm.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["key"] in found or row["seed"] != 0:
            continue
        over = [(row["accuracy"][kind] - low) / (1 - low) for kind, low in blind.items()]
        found[row["key"]] = {
            "key": row["key"], **row["candidate"], "set": row["set"], "quality": sum(over) / len(over),
            "seconds": row["seconds"]["train"] + row["seconds"]["evaluate"],
        }  # fmt: skip
    return [found[key] for key in sorted(found)]


def main() -> None:
    request, rows = workload.load("vqa-short"), trained()
    axes = Candidate.model_fields
    designs = [Candidate(**{axis: row[axis] for axis in axes if axis in row}) for row in rows]
    blocks = {block.key: block for design in designs for block in needed(design, request)}
    with closing(Store.user_cache()) as store:
        here = Device(hardware_profiles.detect(), store).timings(blocks.values())
    for row, design in zip(rows, designs, strict=True):
        row["params"] = cost(design, request).params
        found = {"here": compose(design, request, here)}
        for name in ELSEWHERE:
            found[name] = estimate(design, request, hardware_profiles.load(name))
        for device, latency in found.items():
            row[f"latency_ms@{device}"] = round(latency.latency_ms, 4)
            row[f"latency_low_ms@{device}"], row[f"latency_high_ms@{device}"] = (
                round(latency.low_ms, 4),
                round(latency.high_ms, 4),
            )
    with (Path(__file__).parent / "microvlm.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({name: round(v, 5) if isinstance(v, float) else v for name, v in row.items()} for row in rows)


if __name__ == "__main__":
    main()
