"""nas proxies: what scores there are, what they say of a candidate, and whether they rank as a table's truth does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cli.console import out, talk
from cli.validate import validate_table

app = typer.Typer(no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command("list")
def list_proxies(as_json: AsJson = False) -> None:
    """Every proxy with its paper, direction and needs."""
    from rich.table import Table

    from proxies import get, names

    found = [get(name) for name in names()]
    if as_json:
        fields = ("name", "paper", "equation", "higher_is_better", "families")
        rows = [{**{field: getattr(one, field) for field in fields}, "needs": sorted(one.needs)} for one in found]
        print(json.dumps(rows, indent=2))
        return
    table = Table("proxy", "better", "needs", "equation", "paper")
    for one in found:
        direction = "higher" if one.higher_is_better else "lower"
        table.add_row(one.name, direction, ", ".join(sorted(one.needs)), one.equation, one.paper)
    out().print(table)


@app.command("score")
def score_candidate(
    candidate: Annotated[Path, typer.Argument(help="A candidate's YAML file.")],
    proxy: Annotated[
        list[str] | None, typer.Option(help="A proxy by name; repeat for several. Default: those of a search.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seeds the probe batch and random weights.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Build one candidate and score it without training."""
    from rich.table import Table

    from nas import workload
    from nas.cost import cost
    from nas.quality import score
    from nas.quality.prior import prior
    from proxies import get
    from search_spaces import load_candidate

    for name in proxy or []:
        get(name)
    design = load_candidate(candidate)
    quality = prior(design, cost(design, workload.of_encoder(design.encoder)))
    talk().print(f"building {design}", highlight=False)
    scores = score.score_candidate(design, seed, score.proxies_of(design, proxy))
    if as_json:
        rows = {name: {"value": s.value, "seconds": s.seconds, "reason": s.reason} for name, s in scores.items()}
        document = {"key": design.key, "candidate": design.to_dict(), "quality": quality.to_dict(), "proxies": rows}
        print(json.dumps(document, indent=2))
        return
    table = Table("score", "value", "seconds", "remark")
    interval = f"{quality.low:.3f} to {quality.high:.3f}"
    table.add_row("quality", f"{quality.value:.4f}", "", f"{quality.label}, {interval}")
    for name, one in scores.items():
        value = "-" if one.value is None else f"{one.value:.6g}"
        table.add_row(name, value, f"{one.seconds:.2f}", one.reason or "")
    out().print(table)


app.command("validate")(validate_table)
