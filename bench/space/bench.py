"""Size of each shipped space, time to draw 10,000 valid candidates and time for the closed-form cost of 1,000,000.

    python bench/space/bench.py [--out bench/space/RESULTS.md | SPACE ...]

`--out` writes what stands above the file's first second-level heading, and keeps the rest.

Where a space has fewer candidates than are drawn, all are taken; where it has fewer than 1,000,000, costs are those of
numbers drawn with replacement. Times are wall clock, one process a space; loading the space is not in them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import nas.workload
import search_spaces
from nas.cost import cost
from nas.cost_many import cost_of_codes

DRAWN, COSTED, CHECKED = 10_000, 1_000_000, 200
HEAD = "| space | candidates | draw 10,000 s | codes of 1,000,000 s | cost of 1,000,000 s | params (M) |"


def measure(name: str) -> dict[str, object]:
    """Times of one space under its own workload; checks some of the costs against the scalar ones."""
    space = search_spaces.load(name)
    workload = nas.workload.of_space(space)
    size = space.size
    counted = time.perf_counter()
    drawn = space.draw(DRAWN, random.Random(0))
    finished = time.perf_counter()
    generator = random.Random(1)
    numbers = [generator.randrange(size) for _ in range(COSTED)]
    before_codes = time.perf_counter()
    codes = space.numbering.codes(numbers)
    before_cost = time.perf_counter()
    costs = cost_of_codes(space, codes, workload)
    done = time.perf_counter()
    columns = cost_of_codes(space, space.numbering.codes(space.draw_numbers(CHECKED, random.Random(2))), workload)
    same = space.draw(CHECKED, random.Random(2))
    wrong = [str(one) for row, one in enumerate(same) if columns.row(row) != cost(one, workload)]
    if wrong:
        raise SystemExit(f"{name}: costs differ from the scalar ones of {wrong[:3]}")
    return {
        "space": name, "size": size, "drawn": len(drawn),
        "draw_s": finished - counted, "codes_s": before_cost - before_codes, "cost_s": done - before_cost,
        "params": [int(np.min(costs.params)), int(np.median(costs.params)), int(np.max(costs.params))],
    }  # fmt: skip


def line(found: dict[str, object]) -> str:
    """One row of the table."""
    low, middle, high = (f"{value / 1e6:,.4g}" for value in found["params"])  # type: ignore[attr-defined]
    drawn = f"{found['draw_s']:.2f}" + ("" if found["drawn"] == DRAWN else f" (all {found['drawn']:,})")
    return (
        f"| {found['space']} | {found['size']:,} | {drawn} | {found['codes_s']:.2f} | "
        f"{found['cost_s']:.2f} | {low} / {middle} / {high} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spaces", nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    if options.out and options.spaces:
        parser.error("--out is the table of all spaces; name none, or leave it out")
    rows = [HEAD, "|---|--:|--:|--:|--:|--:|"]
    print("\n".join(rows))
    for name in options.spaces or search_spaces.names():
        told = subprocess.run([sys.executable, __file__, "--one", name], check=True, capture_output=True, text=True)
        rows.append(line(json.loads(told.stdout)))
        print(rows[-1], flush=True)
    if options.out:
        _, mark, others = options.out.read_text().partition("\n## ") if options.out.exists() else ("", "", "")
        text = TEXT.format(table="\n".join(rows), cores=os.cpu_count(), python=platform.python_version())
        options.out.write_text(text + mark + others)


TEXT = """# Spaces: size, drawing and closed-form cost

    python bench/space/bench.py --out bench/space/RESULTS.md

{table}

One process a space, Python {python}, {cores} cores, wall clock, each under its own workload. Spaces are loaded (and counted) before.
*draw*: 10,000 distinct valid candidates as checked records, uniformly. *codes*: the
numbering's codes of 1,000,000 numbers drawn with replacement. *cost*: all columns of the cost record of these rows
(`nas.cost_many`), equal to `nas.cost` on the 200 that each run compares. *params*: smallest, median and largest of them.
Issue targets: draw under 2 s, cost under 10 s.
"""

if __name__ == "__main__":
    main()
