"""What a benchmark of one task is worth to a search on another: `python bench/quality/transfer.py [--draws 10]`.

150 designs of the micro-VLM table teach one task (its emoji questions, or its easy-VQA questions). The others are
searched for the other task, whose accuracies are told with noise: first six or twelve anchors predict the rest, then
simulated searches of twelve trainings (anchors, then by expected gain) keep the 60 % of lowest latency, and are judged by
the hypervolume they reach and by what the best they trained lacks to the best there is.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from nas.pareto import hypervolume
from nas.quality.anchored import Anchored, Features
from nas.quality.benchmark import Benchmark, Informed
from nas.quality.gaussian import Z80, informative
from nas.quality.structure import Structure
from nas.search.funnel import LIMITS, Funnel
from nas.search.table import read
from search_spaces import Candidate

ROOT = Path(__file__).parents[2]
TABLE, LATENCIES = ROOT / "proxies" / "reference" / "microvlm.jsonl", ROOT / "bench" / "search" / "microvlm.csv"
TAUGHT, KEPT, TRAININGS, NOISE = 150, 0.6, 12, 0.03
EASY = ("easy-shape", "easy-colour")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--draws", type=int, default=10)
    draws = arguments.parse_args().draws
    rows = [json.loads(line) for line in TABLE.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["seed"] == 0 and row["set"] in ("main", "test")]
    designs = [Candidate.model_validate(row["candidate"]) for row in rows]
    tasks = {
        "emoji": np.array([mean(row, lambda kind: kind not in EASY) for row in rows]),
        "easy-VQA": np.array([mean(row, lambda kind: kind in EASY) for row in rows]),
    }
    table = read(LATENCIES, ["quality", "latency_ms@here"])
    by_key = {one.key: -table.gains[at, 1] for at, one in enumerate(table.candidate_designs or [])}
    latency = np.array([by_key[one.key] for one in designs])
    for source, target in (("emoji", "easy-VQA"), ("easy-VQA", "emoji")):
        found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
        for seed in range(draws):
            order = np.random.default_rng(seed).permutation(len(designs))
            taught, rest = order[:TAUGHT], order[TAUGHT:]
            known = [designs[at] for at in taught], tasks[source][taught].tolist()
            predict(found, [designs[at] for at in rest], tasks[target][rest], known, seed)
            near = rest[latency[rest] <= np.quantile(latency, KEPT)]
            search(found, [designs[at] for at in near], tasks[target][near], latency[near], known, seed)
        print(f"\n{source} teaches, {target} is asked for; {draws} draws, mean +- its error")
        for name, values in found.items():
            error = np.std(values, axis=0) / np.sqrt(draws)
            print(
                f"  {name:42}"
                + "  ".join(f"{m:7.3f} +- {e:.3f}" for m, e in zip(np.mean(values, axis=0), error, strict=True))
            )


def mean(row: dict, wanted) -> float:
    return float(np.mean([share for kind, share in row["accuracy"].items() if wanted(kind)]))


def predict(found, space: list[Candidate], truths, known, seed: int) -> None:
    """tau over the designs that are no anchors, and the share of 80 % intervals that hold."""
    benchmark = Benchmark(space, known)
    told = [one.value for one in benchmark.predict(space)]
    found["benchmark alone: tau"].append((kendalltau(told, truths)[0],))
    order = np.random.default_rng(seed).permutation(len(space))
    for count in (6, 12):
        anchors, others = order[:count], order[count:]
        for name, features in features_of(space, benchmark).items():
            model = Anchored(space, [space[at] for at in anchors], truths[anchors].tolist(), features)
            means, deviations = model.posterior([space[at] for at in others])
            held = np.abs(means - truths[others]) <= Z80 * deviations
            found[f"{count} anchors, {name}: tau, intervals"].append(
                (kendalltau(means, truths[others])[0], float(held.mean()))
            )


def features_of(space: list[Candidate], benchmark: Benchmark) -> dict[str, Features]:
    return {"structure": Structure(space), "informed": Informed(benchmark)}


def search(found, space: list[Candidate], truths, latency, known, seed: int) -> None:
    """Share of the hypervolume, and what the best trained lacks to the best there is."""
    points = np.column_stack([truths, -latency])
    worst = tuple(points.min(axis=0))
    whole = hypervolume(points.tolist(), worst)
    told = truths + NOISE * np.random.default_rng(seed + 1000).standard_normal(len(space))

    def note(name: str, places: list[int]) -> None:
        best = float(truths[places].max() - truths.max())
        found[f"{name}: hypervolume, best"].append((hypervolume(points[places].tolist(), worst) / whole, best))

    note("12 at random", np.random.default_rng(seed).permutation(len(space))[:TRAININGS].tolist())
    for name, features in features_of(space, Benchmark(space, known)).items():
        own = features.features(space)
        for anchors in (6, 8):
            for at_most, words in ((0, "evenly"), (LIMITS, "half at the limit")):
                funnel = Funnel(space, latency[:, None], own, 0, seed, at_most)
                funnel.queue = informative(own, anchors)
                places: list[int] = []
                while len(places) < TRAININGS and (design := funnel.propose()) is not None:
                    places.append(funnel.places[design.key])
                    funnel.tell(design, [float(told[places[-1]])], {})
                note(f"{anchors} anchors, {name}, {words}", places)


if __name__ == "__main__":
    main()
