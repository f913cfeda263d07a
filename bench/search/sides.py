"""Exact fronts of large spaces on a Raspberry Pi 5: `python bench/search/sides.py [SPACE ...]` prints sizes and seconds."""

from __future__ import annotations

import sys
import time

from nas.config import SearchConfig
from nas.search.problem import define
from nas.search.sides import front_of_sides


def main() -> None:
    for name in sys.argv[1:] or ["edge", "video-edge", "full"]:
        problem = define(SearchConfig.model_validate({"space": name, "devices": ["raspberry-pi-5-8gb"]}))
        size, started = problem.space.size, time.monotonic()
        found = front_of_sides(problem)
        solved = "not solved: too many sides" if found is None else f"{len(found)} on the front"
        print(f"{name:11} {size:,} designs: {solved}, {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main()
