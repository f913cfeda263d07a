"""Fits nas/quality/published.json on published VLM groups and reports leave-one-group-out ranking.

    python bench/quality/published.py ../shared/data/vlm_published.csv [--write]

Truth of a row: mean rank over the metrics that all rows of its group share. Groups of fewer than four rows, or without
a shared metric, are left out; where a score is constant in a group its correlation counts as 0.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.optimize import nnls
from scipy.stats import rankdata, spearmanr

from nas.quality.published import WEIGHTS_FILE, features

PRIOR = 0.1  # weight of a unit of any oriented feature of which the data say nothing
LOWER = ("error", "loss", "perplex", "latency", "ms")


def read(path: Path) -> dict[str, list[dict]]:
    groups = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            groups[row["group_id"]].append({**row, "number": number})
    return groups


def truth(rows: list[dict]) -> np.ndarray | None:
    metrics = [json.loads(row["metrics"] or "{}") for row in rows]
    names = set.intersection(*(set(one) for one in metrics))
    names = {name for name in names if not any(word in name.lower() for word in LOWER)}
    usable = [
        name for name in sorted(names)
        if all(isinstance(one[name], int | float) for one in metrics) and len({one[name] for one in metrics}) > 1
    ]  # fmt: skip
    return np.mean([rankdata([one[name] for one in metrics]) for name in usable], axis=0) if usable else None


def matrix(rows: list[dict], names: list[str]) -> np.ndarray:
    """Centred within the group; an unknown value is the group's mean."""
    table = np.array([[features(row).get(name, np.nan) for name in names] for row in rows])
    with np.errstate(all="ignore"):
        known = np.isfinite(table)
        mean = np.where(known.any(0), np.nansum(np.where(known, table, 0), 0) / np.maximum(known.sum(0), 1), 0)
    return np.where(known, table, mean) - mean


def fit(groups: list[tuple[np.ndarray, np.ndarray]], scale: np.ndarray, ridge: float) -> np.ndarray:
    """Non-negative ridge on centred ranks, drawn to PRIOR instead of zero; each group has the same weight."""
    rows = np.concatenate([x / scale / np.sqrt(len(x)) for x, _ in groups])
    ranks = np.concatenate([(y - y.mean()) / (y.std() or 1) / np.sqrt(len(y)) for _, y in groups])
    penalty = np.sqrt(ridge) * np.eye(rows.shape[1])
    weights, _ = nnls(np.vstack([rows, penalty]), np.concatenate([ranks, np.sqrt(ridge) * PRIOR * scale]))
    return weights / scale


def rho(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    score = (x @ weights).round(9)
    return float(spearmanr(score, y)[0]) if len(set(score)) > 1 else 0.0


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("table", type=Path)
    arguments.add_argument("--ridge", type=float, default=0.3)
    arguments.add_argument("--write", action="store_true")
    given = arguments.parse_args()
    groups = {name: rows for name, rows in read(given.table).items() if len(rows) >= 4 and truth(rows) is not None}
    names = sorted({feature for rows in groups.values() for row in rows for feature in features(row)})
    data = {name: (matrix(rows, names), truth(rows)) for name, rows in groups.items()}
    scale = np.sqrt(np.mean(np.concatenate([x**2 for x, _ in data.values()]), axis=0))
    names = [name for name, size in zip(names, scale, strict=True) if size > 0]
    keep = scale > 0
    data = {name: (x[:, keep], y) for name, (x, y) in data.items()}
    scale = scale[keep]
    source = {name: rows[0]["source"] for name, rows in groups.items()}
    for ridge in (0.03, 0.3, 3.0, 30.0):
        held, strict = [], []
        for name, (x, y) in data.items():
            held.append(rho(x, y, fit([d for other, d in data.items() if other != name], scale, ridge)))
            strict.append(rho(x, y, fit([d for o, d in data.items() if source[o] != source[name]], scale, ridge)))
        mark = "*" if ridge == given.ridge else " "
        print(
            f"{mark} ridge {ridge:4}: leave one group out {np.mean(held):+.3f}, one source out {np.mean(strict):+.3f}, {len(data)} groups"
        )
        if ridge == given.ridge:
            detail = dict(zip(data, held, strict=True))
    weights = fit(list(data.values()), scale, given.ridge)
    for name, value in sorted(detail.items(), key=lambda item: item[1]):
        print(f"  {value:+.3f}  {name} ({len(groups[name])})")
    resampled = np.random.default_rng(0).choice(list(detail.values()), (2000, len(detail))).mean(1)
    print("bootstrap over groups, 90 %:", np.quantile(resampled, [0.05, 0.95]).round(3))
    print("in sample", np.mean([rho(x, y, weights) for x, y in data.values()]).round(3))
    table = [features(row) for rows in groups.values() for row in rows]
    centres = {name: float(np.median([row[name] for row in table if name in row])) for name in names}
    stored = {
        name: {"weight": round(float(w), 5), "centre": round(centres[name], 4)}
        for name, w in zip(names, weights, strict=True)
    }
    print(json.dumps({name: entry["weight"] for name, entry in stored.items()}, indent=1))
    if given.write:
        about = {
            "fitted_on": given.table.name,
            "groups": len(data),
            "ridge": given.ridge,
            "leave_one_group_out": round(float(np.mean(list(detail.values()))), 3),
        }
        WEIGHTS_FILE.write_text(json.dumps({**about, "weights": stored}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
