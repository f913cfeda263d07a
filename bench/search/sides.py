"""Exact fronts of large spaces on a Raspberry Pi 5: `python bench/search/sides.py [SPACE ...]` prints sizes, seconds and memory."""

from __future__ import annotations

import resource
import sys
import time

from nas.config import SearchConfig
from nas.search.problem import define
from nas.search.sides import front_of_sides


def main() -> None:
    for name in sys.argv[1:] or ["edge", "video-edge", "laptop", "full"]:
        problem = define(SearchConfig.model_validate({"space": name, "devices": ["raspberry-pi-5-8gb"]}))
        size, started, busy = problem.space.size, time.monotonic(), time.process_time()
        found, why_not = front_of_sides(problem, most_s=600)
        solved = f"not solved, {why_not}" if found is None else f"{len(found)} on the front"
        most_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        spent = f"{time.monotonic() - started:.1f} s, {time.process_time() - busy:.1f} s of the processor"
        print(f"{name:11} {size:,} designs: {solved}; {spent}; at most {most_gib:.2f} GiB so far", flush=True)


if __name__ == "__main__":
    main()
