"""nas search --replay TABLE: samplers compared on designs that were evaluated before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cli.console import out, talk

OBJECTIVES = ("quality", "latency_ms")


def replay_table(
    file: Path,
    objectives: list[str] | None,
    axes: list[str] | None,
    sampler: str | None,
    trials: int | None,
    workers: int | None,
    repeats: int,
    *,
    json_: bool,
    quiet: bool,
) -> None:
    """Prints the share of the true front's hypervolume that each sampler reaches at each budget."""
    from nas.errors import ConfigError
    from nas.search import table
    from nas.search.replay import BUDGETS, SAMPLERS, compare
    from search_spaces.reading import hint

    if sampler is not None and sampler not in SAMPLERS:
        raise ConfigError(f"--replay has no sampler {sampler!r}; {hint(sampler, SAMPLERS)}")
    read = table.read(file, objectives or OBJECTIVES, axes or ())
    budgets = [budget for budget in BUDGETS if trials is None or budget < trials] + ([] if trials is None else [trials])

    def progress(what: str, done: int, of: int) -> None:
        if not quiet:
            talk().print(f"{what} {done}/{of}", markup=False, highlight=False)

    found = compare(read, (sampler,) if sampler else SAMPLERS, budgets, repeats, workers or 1, progress)
    if json_:
        print(json.dumps(found, indent=1))
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    from rich.table import Table

    title = f"Hypervolume as a share of all {found['designs']} designs: {', '.join(found['objectives'])}"
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
