"""Replay: searches over a table of evaluated designs, with a virtual clock and any number of workers.

Nothing is built or trained: an evaluation looks its row up and takes as long as the row says. A sampler is judged by
the hypervolume of what it has evaluated, as a share of that of the whole table, counted from the worst of every
objective. Seeds are paired: seed s of one sampler is compared with seed s of random draws.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from nas.cost_rows import Matrix
from nas.pareto import hypervolume
from nas.quality.structure import Structure
from nas.search.funnel import Funnel
from nas.search.proposer import Direction, Proposer, Sampled
from nas.search.table import Design, Table
from search_spaces.catalogue import SpaceError

SAMPLERS = ("random", "tpe", "nsga2", "nsga3", "gp", "funnel")
BUDGETS = (25, 50, 100, 200)
NOT_APPLICABLE = {"cma-es": "needs a single objective and axes that are all numbers"}
MOST_EVALUATIONS = {"gp": 50}  # beside other samplers: each later one takes seconds to propose
Progress = Callable[[str, int, int], None]


def proposer(table: Table, name: str, seed: int) -> Proposer[Design]:
    """What proposes rows: the funnel, or a named sampler, each as in a search."""
    if name == "funnel":
        return Funnel(table.designs, -table.gains[:, 1:], columns(table), 0, seed)
    directions: list[Direction] = ["maximize"] * len(table.objectives)
    return Sampled(table, directions, name, seed)


def columns(table: Table) -> Matrix:
    """(designs, features) that tell the table's rows apart."""
    try:
        candidates = table.candidate_designs
        return table.structure if candidates is None else Structure(candidates).features(candidates)
    except (ValidationError, SpaceError):  # of parts that are not ours
        return table.structure


@dataclass(frozen=True, slots=True)
class Simulated:
    """One simulated search: rows in the order in which they were finished, and when on the virtual clock."""

    sampler: str
    seed: int
    places: tuple[int, ...]
    finished_s: tuple[float, ...]


def simulate(table: Table, sampler: str, seed: int, budget: int, workers: int = 1) -> Simulated:
    """At most `budget` evaluations by `workers` at once; what is under way is not told before it ends."""
    strategy = proposer(table, sampler, seed)
    running: list[tuple[float, int, Design]] = []  # (end, number, design)
    places: list[int] = []
    ends: list[float] = []
    clock, started = 0.0, 0
    while True:
        while len(running) < workers and started < budget:
            design = strategy.propose()
            if design is None:
                break
            started += 1
            heapq.heappush(running, (clock + float(table.seconds[design.place]), started, design))
        if not running:
            return Simulated(sampler, seed, tuple(places), tuple(ends))
        clock, _, design = heapq.heappop(running)
        strategy.tell(design, table.gains[design.place].tolist(), {})
        places.append(design.place)
        ends.append(clock)


def share(table: Table, places: Sequence[int], whole: float) -> float:
    """Hypervolume of the rows as a share of `whole`."""
    return hypervolume(table.gains[list(places)].tolist(), table.reference) / whole


def compare(
    table: Table,
    samplers: Sequence[str] = SAMPLERS,
    budgets: Sequence[int] = BUDGETS,
    seeds: Sequence[int] = range(20),
    workers: int = 1,
    progress: Progress = lambda what, done, of: None,
) -> dict[str, Any]:
    """Every sampler at every budget over paired seeds; random is always among them."""
    whole = hypervolume(table.gains.tolist(), table.reference)
    every = sorted({min(budget, table.size) for budget in budgets})
    shares: dict[str, Matrix] = {}
    rows = []
    for name in dict.fromkeys(("random", *samplers)):
        most = MOST_EVALUATIONS.get(name, table.size) if len(samplers) > 1 else table.size
        reached = [budget for budget in every if budget <= most]
        if not reached:
            continue
        runs = []
        for place, seed in enumerate(seeds, 1):
            runs.append(simulate(table, name, seed, reached[-1], workers))
            progress(name, place, len(seeds))
        shares[name] = np.array([[share(table, run.places[:budget], whole) for budget in reached] for run in runs])
        for column, budget in enumerate(reached):
            spent = float(np.mean([run.finished_s[budget - 1] for run in runs]))
            found = shares[name][:, column]
            rows.append(
                {
                    "sampler": name, "evaluations": budget, "share": float(found.mean()),
                    "low": float(np.quantile(found, 0.1)), "high": float(np.quantile(found, 0.9)),
                    **_paired(found, shares["random"][:, column]), "virtual_s": spent,
                    "duplicates": sum(budget - len(set(run.places[:budget])) for run in runs),
                    "shares": [round(float(one), 6) for one in found],
                }
            )  # fmt: skip
    return {
        "objectives": list(table.objectives), "directions": list(table.directions), "axes": list(table.axes),
        "designs": table.size, "rows_incomplete": table.incomplete, "rows_repeated": table.repeated,
        "seeds": list(seeds), "workers": workers, "results": rows, "most_evaluations": MOST_EVALUATIONS,
        "not_applicable": NOT_APPLICABLE if set(SAMPLERS) <= set(samplers) else {},
    }  # fmt: skip


def _paired(found: Matrix, random_draws: Matrix) -> dict[str, float | None]:
    """One-sided p of a Wilcoxon signed-rank test over the paired seeds; None where no pair differs."""
    if np.allclose(found, random_draws):
        return {"p_above_random": None, "p_below_random": None}
    from scipy.stats import wilcoxon

    return {
        "p_above_random": float(wilcoxon(found, random_draws, alternative="greater").pvalue),
        "p_below_random": float(wilcoxon(found, random_draws, alternative="less").pvalue),
    }
