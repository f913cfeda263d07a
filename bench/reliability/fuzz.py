"""Feeds the program broken YAML files and arguments until the time is up: only success or one clean line may come.

python bench/reliability/fuzz.py --minutes 10
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from fuzzed_inputs import INPUTS, Input, run_one
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded


def examiner(name: str, seed: int, counts: collections.Counter[str], traces: dict[str, str]) -> Callable[[], None]:
    """Runs many examples of one kind of input; what they end in is counted, and the first of each trace kept."""

    @seeded(seed)
    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(INPUTS[name])
    def examine(arguments: Input) -> None:
        outcome = run_one(arguments)
        counts[f"{name}: exit {outcome.code}"] += 1
        if not outcome.is_clean:
            last = (outcome.trace or outcome.said).strip().splitlines() or ["nothing said"]
            traces.setdefault(last[-1][:60], f"{arguments}\n{outcome.trace or outcome.said}")

    return examine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    deadline, counts, seed = time.monotonic() + 60 * asked.minutes, collections.Counter[str](), asked.seed
    traces: dict[str, str] = {}
    while time.monotonic() < deadline and len(traces) < 20:
        seed += 1
        for name in INPUTS:
            examiner(name, seed, counts, traces)()
            if time.monotonic() > deadline:
                break
    print(json.dumps({"inputs": sum(counts.values()), "by exit code": dict(sorted(counts.items()))}, indent=2))
    for trace in traces.values():
        print(trace)
    return 1 if traces else 0


if __name__ == "__main__":
    raise SystemExit(main())
