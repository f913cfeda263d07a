"""Replay: searches over a table of evaluated designs, with a virtual clock and any number of workers.

Nothing is built or trained: an evaluation looks its row up and takes as long as the row says. A sampler is judged by
the hypervolume of what it has evaluated, as a share of that of the whole table, counted from the worst of every
objective. Seeds are paired: seed s of one sampler is compared with seed s of random draws.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nas.pareto import hypervolume
from nas.quality.anchored import Anchored
from nas.quality.gaussian import Matrix
from nas.quality.structure import Structure
from nas.search.funnel import Funnel
from nas.search.proposer import Direction, Proposer
from nas.search.table import Design, Table

SAMPLERS = ("random", "tpe", "nsga2", "nsga3", "gp", "funnel")
BUDGETS = (25, 50, 100, 200)
NOT_APPLICABLE = {"cma-es": "needs a single objective and axes that are all numbers"}
Progress = Callable[[str, int, int], None]


class Strategy(Protocol):
    """Proposes rows and learns what they hold."""

    def propose(self) -> Design | None: ...

    def tell(self, design: Design) -> None: ...


class _Sampled:
    """A named Optuna sampler, by the same proposer as a search."""

    def __init__(self, table: Table, name: str, seed: int) -> None:
        self.table = table
        directions: list[Direction] = ["maximize"] * len(table.objectives)
        self.proposer: Proposer[Design] = Proposer(table, directions, name, seed)

    def propose(self) -> Design | None:
        return self.proposer.propose()

    def tell(self, design: Design) -> None:
        self.proposer.tell(design, self.table.gains[design.place].tolist(), {})


class _Funnelled:
    """The funnel over the table's rows; those that are candidates of ours are told apart by their structure."""

    def __init__(self, table: Table, seed: int) -> None:
        self.table = table
        self.columns = columns(table)
        self.funnel = Funnel(-table.gains[:, 1:], self.columns, self._posterior, seed)

    def features(self, designs: Sequence[Design]) -> Matrix:
        result: Matrix = self.columns[[design.place for design in designs]]
        return result

    def _posterior(self, places: Sequence[int], qualities: Matrix) -> tuple[Matrix, Matrix]:
        designs = [self.table.designs[place] for place in places]
        model = Anchored((), designs, qualities.tolist(), structure=self)
        return model.posterior(self.table.designs)

    def propose(self) -> Design | None:
        place = self.funnel.propose()
        return None if place is None else self.table.designs[place]

    def tell(self, design: Design) -> None:
        self.funnel.tell(design.place, float(self.table.gains[design.place, 0]))


def columns(table: Table) -> Matrix:
    """(designs, features) that tell the table's rows apart."""
    candidates = table.candidate_designs
    return table.structure if candidates is None else Structure(candidates).features(candidates)


@dataclass(frozen=True, slots=True)
class Simulated:
    """One simulated search: rows in the order in which they were finished, and when on the virtual clock."""

    sampler: str
    seed: int
    places: tuple[int, ...]
    finished_s: tuple[float, ...]


def simulate(table: Table, sampler: str, seed: int, budget: int, workers: int = 1) -> Simulated:
    """At most `budget` evaluations by `workers` at once; what is under way is not told before it ends."""
    strategy: Strategy = _Funnelled(table, seed) if sampler == "funnel" else _Sampled(table, sampler, seed)
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
        strategy.tell(design)
        places.append(design.place)
        ends.append(clock)


def share(table: Table, places: Sequence[int], whole: float) -> float:
    """Hypervolume of the rows as a share of `whole`."""
    return hypervolume(table.gains[list(places)].tolist(), table.reference) / whole


def compare(
    table: Table,
    samplers: Sequence[str] = SAMPLERS,
    budgets: Sequence[int] = BUDGETS,
    seeds: int = 20,
    workers: int = 1,
    progress: Progress = lambda what, done, of: None,
) -> dict[str, Any]:
    """Every sampler at every budget over paired seeds; random is always among them."""
    most = min(max(budgets), table.size)
    reached = sorted({min(budget, most) for budget in budgets})
    whole = hypervolume(table.gains.tolist(), table.reference)
    shares: dict[str, Matrix] = {}
    rows = []
    for name in dict.fromkeys(("random", *samplers)):
        runs = []
        for seed in range(seeds):
            runs.append(simulate(table, name, seed, most, workers))
            progress(name, seed + 1, seeds)
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
        "objectives": list(table.objectives), "designs": table.size, "seeds": seeds, "workers": workers,
        "not_applicable": NOT_APPLICABLE, "results": rows,
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
