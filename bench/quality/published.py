"""Fits nas/quality/published.json on published VLM groups and reports how it ranks groups that it did not see.

python bench/quality/published.py ../shared/data/vlm_published.csv [--write]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from nas.quality import groups
from nas.quality.published import WEIGHTS_FILE
from nas.quality.tables import read_table


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("table", type=Path)
    arguments.add_argument("--write", action="store_true")
    given = arguments.parse_args()
    found = groups.groups(read_table(given.table))
    figures: dict[float, tuple[list[float], list[float]]] = {}
    for ridge in (0.03, groups.RIDGE, 3.0, 30.0):
        held, strict = (
            [groups.rho(s, group.truth) for s, group in zip(scores, found, strict=True)]
            for scores in (
                groups.held_out(found, by=lambda group: group.name, ridge=ridge),
                groups.held_out(found, by=lambda group: group.source, ridge=ridge),
            )
        )
        figures[ridge] = held, strict
        mark = "*" if ridge == groups.RIDGE else " "
        print(f"{mark} ridge {ridge:4}: leave one group out {np.mean(held):+.3f}, one source out {np.mean(strict):+.3f}, {len(found)} groups")  # fmt: skip
    held = figures[groups.RIDGE][0]
    for value, group in sorted(zip(held, found, strict=True), key=lambda item: item[0]):
        print(f"  {value:+.3f}  {group.name} ({len(group.rows)})")
    resampled = np.random.default_rng(0).choice(held, (2000, len(held))).mean(1)
    print("bootstrap over groups, 90 %:", np.quantile(resampled, [0.05, 0.95]).round(3))
    scale = groups.calibrate(found, groups.held_out(found, by=lambda group: group.name))
    print(f"accuracy a unit of score {scale.slope:.4f}; 80 % interval +-{scale.half_width:.4f}, which holds "
          f"{scale.coverage:.0%} of the rows of groups left out ({scale.groups} groups with percentages)")  # fmt: skip
    weights = groups.fitted(found)
    print(json.dumps({name: entry["weight"] for name, entry in weights.items()}, indent=1))
    if given.write:
        about = {
            "fitted_on": given.table.name, "command": "python bench/quality/published.py TABLE --write",
            "group_names": sorted(group.name for group in found), "sources": sorted({group.source for group in found}),
            "ridge": groups.RIDGE, "leave_one_group_out": round(float(np.mean(held)), 3),
            "calibration": {name: round(value, 5) for name, value in asdict(scale).items()},
            "leave_one_source_out": round(float(np.mean(figures[groups.RIDGE][1])), 3),
        }  # fmt: skip
        WEIGHTS_FILE.write_text(json.dumps({**about, "weights": weights}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
