"""The calibrated model on timm's tables: `python bench/latency/timm_tables.py CSV...`: 20 models measured, all others predicted.

Prints median error, rank correlation, the share inside the 80 % interval and beyond the measured ranges, for the 20 that
the program chooses and for random ones; `--thirds` repeats it on random thirds of each table, where neither was tuned.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from nas.latency.calibrated import fit, solve, spread

NAMES = ("one", "infer_gmacs", "infer_macts", "param_count")
POINTS = 20


def read(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """(features (n, 4), milliseconds an image (n)) of the models whose work the table knows."""
    with file.open(encoding="utf-8") as lines:
        table = [row for row in csv.DictReader(lines) if row["infer_gmacs"] and row["infer_macts"]]
    table = [row for row in table if float(row["infer_step_time"]) > 0]
    features = np.array([[1.0, *(float(row[name]) for name in NAMES[1:])] for row in table])
    return features, np.array([float(row["infer_step_time"]) / float(row["infer_batch_size"]) for row in table])


def outcome(features: np.ndarray, times: np.ndarray, chosen: list[int]) -> list[float]:
    """Median error, Spearman, share inside, and share that is flagged, over the models not chosen."""
    model = fit(NAMES, features[chosen], times[chosen])
    rest = np.setdiff1d(np.arange(len(times)), chosen)
    found = model.predict(features[rest])
    value = np.array([each.value for each in found])
    inside = np.mean([each.low <= time <= each.high for each, time in zip(found, times[rest], strict=True)])
    wrong = np.median(np.abs(value / times[rest] - 1))
    return [wrong, spearmanr(value, times[rest])[0], inside, np.mean([each.extrapolated for each in found])]


def draws(features: np.ndarray, times: np.ndarray, count: int) -> np.ndarray:
    """Outcomes of `count` random choices."""
    return np.array(
        [
            outcome(features, times, np.random.default_rng(seed).choice(len(times), POINTS, replace=False).tolist())
            for seed in range(count)
        ]
    )


def table(features: np.ndarray, times: np.ndarray) -> None:
    print("| the 20 | median abs. error | Spearman | inside 80 % interval | beyond the ranges |")
    print("|---|---|---|---|---|")
    ours = outcome(features, times, spread(features[:, 1:], POINTS))
    print("| the program's rule | {:.1%} | {:.3f} | {:.0%} | {:.0%} |".format(*ours))
    found = draws(features, times, 50)
    print("| 50 random draws, median | {:.1%} | {:.3f} | {:.0%} | {:.0%} |".format(*np.median(found, axis=0)))
    worst = [found[:, 0].max(), found[:, 1].min(), found[:, 2].min(), found[:, 3].max()]
    print("| 50 random draws, worst | {:.1%} | {:.3f} | {:.0%} | {:.0%} |".format(*worst))
    every = features @ solve(features, times)
    print(f"\nfitted to all models (the floor of this form): {np.median(np.abs(every / times - 1)):.1%}")


def thirds(features: np.ndarray, times: np.ndarray) -> None:
    """Sixteen random thirds of the models: the rule and 12 random draws in each, medians."""
    ours, others = [], []
    for seed in range(16):
        part = np.random.default_rng(100 + seed).permutation(len(times))[: len(times) // 3]
        ours.append(outcome(features[part], times[part], spread(features[part, 1:], POINTS)))
        others.append(np.median(draws(features[part], times[part], 12), axis=0))
    for name, found in (("the program's rule", ours), ("random", others)):
        print("16 thirds, {}: {:.1%}, {:.3f}, inside {:.0%}".format(name, *np.median(found, axis=0)[:3]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--thirds", action="store_true")
    asked = parser.parse_args()
    for file in asked.tables:
        features, times = read(file)
        print(f"\n{file.name}: {len(times)} models, {POINTS} of them measured\n")
        table(features, times)
        if asked.thirds:
            thirds(features, times)


if __name__ == "__main__":
    main()
