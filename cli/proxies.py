"""nas proxies: what scores there are, what they say of a candidate, and whether they rank as a table's truth does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cli.console import out, talk

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
    proxy: Annotated[list[str] | None, typer.Option(help="A proxy by name; repeat for several. Default: all.")] = None,
    seed: Annotated[int, typer.Option(help="Seeds the probe batch and random weights.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Build one candidate and score it without training."""
    from rich.table import Table

    from nas import workload
    from nas.cost import cost
    from nas.quality.prior import prior
    from nas.quality.score import DEFAULT, probe_batch, score
    from proxies import get
    from search_spaces import load_candidate

    wanted = proxy or list(DEFAULT)
    for name in wanted:
        get(name)
    design = load_candidate(candidate)
    quality = prior(design, cost(design, workload.load("vqa-short")))
    from nas.model import build

    talk().print(f"building {design}", highlight=False)
    model = build(design, seed=seed)
    scores = score(model, probe_batch(model, seed), wanted)
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


@app.command("validate")
def validate_table(
    table: Annotated[Path, typer.Argument(help="CSV, or JSON lines, of trained models: one row a model.")],
    truth: Annotated[str, typer.Option(help="Column of the trained result; a dot goes into nested fields.")] = "truth",
    params: Annotated[str, typer.Option(help="Column of the parameter count, the baseline.")] = "params",
    lower_is_better: Annotated[bool, typer.Option(help="The truth is a loss or perplexity.")] = False,
    latency: Annotated[
        str | None, typer.Option(help="Column of a measured latency: compares at equal latency.")
    ] = None,
    depth: Annotated[
        str | None, typer.Option(help="Column of the depth; with --width, their products join in.")
    ] = None,
    width: Annotated[str | None, typer.Option(help="Column of the width.")] = None,
    design: Annotated[
        str | None, typer.Option(help="Column that names the design: repeated ones give the noise ceiling.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rank every numeric column against the truth: overall, at equal cost (within 10 %), and at the top."""
    from rich.table import Table

    from nas.quality.evidence import compare, noise_ceiling, read_table

    read = read_table(table)
    rows = compare(
        read, truth=truth, params=params, lower_is_better=lower_is_better, latency=latency, depth=depth, width=width
    )
    ceiling = noise_ceiling(read, truth=truth, design=design) if design else None
    if as_json:
        document = {"noise_ceiling": ceiling and ceiling.to_dict(), "scores": [row.to_dict() for row in rows]}
        print(json.dumps(document, indent=2))
        return
    shown = Table("score", "n", "tau", "90 %", "rho", "tau at equal params", "pairs")
    if latency:
        shown.add_column("tau at equal latency")
        shown.add_column("pairs")
    shown.add_column("top 10 % shared")
    for row in rows:
        figures = [str(row.n), _figure(row.tau), _interval(row.tau_low, row.tau_high), _figure(row.rho)]
        figures += [_figure(row.tau_equal_params), str(row.pairs_equal_params)]
        figures += [_figure(row.tau_equal_latency), str(row.pairs_equal_latency)] if latency else []
        shown.add_row(f"{row.name} (baseline)" if row.name == params else row.name, *figures, f"{row.top_overlap:.0%}")
    out().print(shown)
    if ceiling:
        text = f"noise ceiling, {ceiling.designs} designs trained twice: rho {ceiling.rho:+.3f}, tau {ceiling.tau:+.3f}"
        out().print(text, highlight=False)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:+.3f} to {high:+.3f}"
