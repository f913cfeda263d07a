"""nas search --replay TABLE: samplers compared on designs that were evaluated before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from cli.console import out, talk

if TYPE_CHECKING:
    from nas.search import table as tables

OBJECTIVES = ("quality", "latency_ms")


def replay_table(
    file: Path,
    objectives: list[str] | None,
    axes: list[str] | None,
    sampler: str | None,
    trials: int | None,
    workers: int | None,
    seeds: Sequence[int],
    *,
    json_: bool,
    quiet: bool,
) -> None:
    """Prints the share of the true front's hypervolume that each sampler reaches at each budget."""
    from nas.config import MOST_SEED, SamplerName
    from nas.errors import ConfigError
    from nas.search import table
    from search_spaces.reading import hint

    if not 0 <= seeds[0] <= seeds[-1] <= MOST_SEED:
        raise ConfigError(
            f"seeds must be in 0..{MOST_SEED}, but got {seeds[0]} to {seeds[-1]}; give another --seed or --repeats"
        )
    if sampler is not None and sampler not in get_args(SamplerName):
        raise ConfigError(f"--replay has no sampler {sampler!r}; {hint(sampler, get_args(SamplerName))}")
    for name, value in (("trials", trials), ("workers", workers)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be 1 or more, but got {value}")
    read = table.read(file, objectives or OBJECTIVES, axes or ())
    from nas.search.replay import BUDGETS, SAMPLERS, compare  # loads Optuna: only once everything is in order

    budgets = [budget for budget in BUDGETS if trials is None or budget < trials] + ([] if trials is None else [trials])

    if not quiet:
        talk().print(_what(read), markup=False, highlight=False, soft_wrap=True)

    def progress(what: str, done: int, of: int) -> None:
        if not quiet:
            talk().print(f"{what} {done}/{of}", markup=False, highlight=False)

    found = compare(read, (sampler,) if sampler else SAMPLERS, budgets, seeds, workers or 1, progress)
    if json_:
        print(json.dumps(found, indent=1))
    else:
        _print(found)


def _what(table: tables.Table) -> str:
    """What is replayed, and which rows are not."""
    found, *known = (f"{name} ({way})" for name, way in zip(table.objectives, table.directions, strict=True))
    text = (
        f"{table.size} designs of {', '.join(table.axes)}; an evaluation finds {found}, {', '.join(known)} known before"
    )
    if table.incomplete:
        text += f"; {table.incomplete} rows lack one of them"
    if table.repeated:
        text += f"; {table.repeated} rows repeat a design, of which the first row counts"
    return text


def _print(found: dict[str, Any]) -> None:
    from rich.table import Table

    objectives = zip(found["objectives"], found["directions"], strict=True)
    title = f"Hypervolume as a share of all {found['designs']} designs: {', '.join(map(' '.join, objectives))}"
    shown = Table("sampler", "evaluations", "share", "80 % of seeds", "p above random", "duplicates", "virtual s",
                  title=title, title_justify="left")  # fmt: skip
    for row in found["results"]:
        above = row["p_above_random"]
        figures = (
            f"{row['share']:.4f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            "-" if above is None else f"{above:.2g}",
        )
        shown.add_row(
            row["sampler"], str(row["evaluations"]), *figures, str(row["duplicates"]), f"{row['virtual_s']:.0f}"
        )
    out().print(shown)
    for name, reason in found["not_applicable"].items():
        out().print(f"{name} does not apply: it {reason}", highlight=False)
    samplers = {row["sampler"] for row in found["results"]}
    for name, most in found["most_evaluations"].items():
        if name in samplers and samplers != {"random", name}:
            out().print(f"{name} is slow and stops at {most} evaluations beside others; --sampler {name} has all")
