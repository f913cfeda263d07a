"""How well K anchors of `main` rank models that were not trained, on the micro-VLM benchmark.

    python bench/quality/anchored.py [--sets main|test] [--draws 40] [--admission]
    python bench/quality/anchored.py --kinds                     each kind of question: blind, worst, median, best

Accuracy is the mean over question kinds of (accuracy - blind) / (1 - blind). A kind would be saturated where a tenth of
`main` answers SATURATED of it or more. `main` scores the models of main that are no anchors and is for development;
`test` scores the test set. Anchors are chosen of a random half of main, so that the draws differ.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

import proxies
from nas import workload
from nas.cost import cost
from nas.quality.agreement import agreement, agreement_at_equal_cost
from nas.quality.anchored import Anchored
from nas.quality.gaussian import informative
from nas.quality.prior import prior
from nas.quality.score import DEFAULT
from nas.quality.structure import Structure, rank_budget
from search_spaces import Candidate, load
from search_spaces.catalogue import language_model

REFERENCE = Path(__file__).parents[2] / "proxies" / "reference"
SHIPPED = REFERENCE / "microvlm.jsonl"
SATURATED, SHARE = 0.95, 0.10
FEWEST = 5  # designs trained again that make a noise ceiling


def blind_by_kind(file: Path = SHIPPED) -> dict[str, float]:
    return json.loads(file.with_suffix(".about.json").read_text(encoding="utf-8"))["blind"]


def rows(file: Path = SHIPPED) -> list[dict]:
    blind = blind_by_kind(file)
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        over = [(row["accuracy"][kind] - low) / (1 - low) for kind, low in blind.items()]
        found.append({**row, "truth": sum(over) / len(over), "candidate": Candidate(**row["candidate"])})
    return found


def show_kinds(table: list[dict], blind: dict[str, float]) -> None:
    print(f"{'kind':12} blind   worst  median     90 %    best  share of main at {SATURATED} or more")
    for kind, low in blind.items():
        values = np.array([row["accuracy"][kind] for row in table if row["set"] == "main"])
        word = "  saturated" if np.mean(values >= SATURATED) >= SHARE else ""
        print(f"{kind:12} {low:.3f}   {values.min():.3f}   {np.median(values):.3f}   {np.quantile(values, 0.9):.3f}   "
              f"{values.max():.3f}  {np.mean(values >= SATURATED):.2f}{word}")  # fmt: skip


def noise_ceiling(table: list[dict], name: str) -> str:
    """Mean Spearman between two trainings of the same designs of that set, from every pair of seeds."""
    by_key: dict[str, dict[int, float]] = {}
    for row in table:
        by_key.setdefault(row["key"], {})[row["seed"]] = row["truth"]
    keys = {row["key"] for row in table if row["set"] == name}
    most = max(len(by_key[key]) for key in keys)
    repeated = [by_key[key] for key in keys if len(by_key[key]) == most]
    if most < 2 or len(repeated) < FEWEST:
        return "not known"
    found = [spearmanr([s[a] for s in repeated], [s[b] for s in repeated])[0] for a, b in combinations(range(most), 2)]
    return f"{np.mean(found):.3f} ({len(repeated)} designs, {most} seeds)"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sets", choices=["main", "test"], default="main")
    arguments.add_argument("--admission", action="store_true", help="also with proxies to admit of; slow")
    arguments.add_argument("--draws", type=int, default=40)
    arguments.add_argument("--kinds", action="store_true", help="each kind of question, and no score")
    arguments.add_argument("--table", type=Path, default=SHIPPED)
    given = arguments.parse_args()
    table, space = rows(given.table), load("microvlm").candidates
    if given.kinds:
        show_kinds(table, blind_by_kind(given.table))
        return
    request = workload.load("vqa-short")
    fit_on = [row for row in table if row["set"] == "main"]
    scored = [row for row in table if row["set"] == given.sets]
    ceilings = ", ".join(f"of {name} {noise_ceiling(table, name)}" for name in ("main", "test"))
    print(f"{len(fit_on)} models of main, {len(scored)} of {given.sets}; noise ceilings (rho): {ceilings}")
    truth = [row["truth"] for row in scored]
    params = [cost(row["candidate"], request).params for row in scored]
    report("params", params, truth, params)
    costs = [cost(row["candidate"], request) for row in scored]
    widths = [language_model(row["candidate"].lm).hidden for row in scored]
    depths = [row["candidate"].lm_depth for row in scored]
    report("depth", depths, truth, params)
    report("depth x width", [d * w for d, w in zip(depths, widths, strict=True)], truth, params)
    report("depth x width^2", [d * w * w for d, w in zip(depths, widths, strict=True)], truth, params)
    report("rank budget", [rank_budget(row["candidate"]) for row in scored], truth, params)
    report("vision FLOPs", [one.vision_flops for one in costs], truth, params)
    report(
        "predicted:prior",
        [prior(row["candidate"], one).value for row, one in zip(scored, costs, strict=True)],
        truth,
        params,
    )
    for count in (6, 12, 24, 48):
        draws(f"anchored, {count:2} anchors", space, fit_on, scored, count, given.draws)
    for kind in ("random", "real") if given.admission else ():
        for label, names in (("default", DEFAULT), ("all", proxies.names())):
            values = proxy_values(kind, names)
            draws(f"12 anchors, may admit of {label} ({kind} batch)", space, fit_on, scored, 12, given.draws, values)


def proxy_values(kind: str, names: list[str]) -> dict[str, dict]:
    """The named proxies of every design, by key."""
    lines = (REFERENCE / "microvlm.proxies.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["key"]: {name: row[kind].get(name) for name in names} for row in map(json.loads, lines)}


def draws(
    label: str, space: list, fit_on: list[dict], scored: list[dict], count: int, times: int, values: dict | None = None
) -> None:
    """Anchors of a random half of `fit_on`, each time another; scored on what is no anchor."""
    structure = Structure(space)
    rhos, bands, cover, errors, admitted = [], [], [], [], Counter()
    for number in range(times):
        half = random.Random(number).sample(fit_on, max(count, len(fit_on) // 2))
        chosen = [half[i] for i in informative(structure.features([row["candidate"] for row in half]), count)]
        keys = {row["key"] for row in chosen}
        known = None if values is None else [values[row["key"]] for row in chosen]
        model = Anchored(space, [row["candidate"] for row in chosen], [row["truth"] for row in chosen], proxies=known)
        admitted[model.admitted] += 1
        held = [row for row in scored if row["key"] not in keys]
        shown = None if values is None else [values[row["key"]] for row in held]
        guesses = model.predict([row["candidate"] for row in held], shown)
        predicted, real = [one.value for one in guesses], [row["truth"] for row in held]
        size = [cost(row["candidate"], workload.load("vqa-short")).params for row in held]
        rhos.append(agreement(predicted, real).spearman_rho or 0.0)
        bands.append(agreement_at_equal_cost(predicted, real, size).kendall_tau or 0.0)
        cover.append(np.mean([one.low <= t <= one.high for one, t in zip(guesses, real, strict=True)]))
        errors.append(np.mean(np.abs(np.array(predicted) - real)))
    low, high = np.quantile(rhos, [0.1, 0.9])
    print(f"{label}   rho {np.mean(rhos):+.3f} ({low:+.3f} to {high:+.3f})  tau at equal params {np.mean(bands):+.3f}"
          f"  80 % interval holds {np.mean(cover):.0%}  mean error {np.mean(errors):.3f}"
          + (f"  admitted: {dict(admitted)}" if values else ""), flush=True)  # fmt: skip


def report(name: str, scores: list, truth: list[float], params: list[float]) -> None:
    whole, band = agreement(scores, truth), agreement_at_equal_cost(scores, truth, params)
    shown = math.nan if band.kendall_tau is None else band.kendall_tau
    print(
        f"{name:22} rho {whole.spearman_rho:+.3f}  tau {whole.kendall_tau:+.3f}  tau at equal params {shown:+.3f} ({band.pairs} pairs)"
    )


if __name__ == "__main__":
    main()
