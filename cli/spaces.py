"""`nas spaces`: what may be built."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import out, talk

if TYPE_CHECKING:
    from nas.space_profile import SpaceProfile

app = typer.Typer(no_args_is_help=True)

Space = Annotated[str, typer.Argument(metavar="S", help="a shipped space by name, or the path of a YAML file")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on stdout and nothing else")]
UNITS = {"params": (1e6, "M"), "flops": (1e9, "GFLOP"), "decode_flops": (1e9, "GFLOP"), "memory_gib": (1, "GiB")}


@app.command("list")
def list_spaces(as_json: AsJson = False) -> None:
    """The shipped spaces."""
    import search_spaces

    spaces = [search_spaces.load(name) for name in search_spaces.names()]
    if as_json:
        _print_json([{"name": s.name, "candidates": s.size, "description": s.description} for s in spaces])
        return
    _print_table(["space", "candidates", "what"], [[s.name, f"{s.size:,}", s.description] for s in spaces])
    talk().print("next: nas spaces show NAME, or nas spaces profile NAME", style="dim", highlight=False)


@app.command()
def show(space: Space, as_json: AsJson = False) -> None:
    """Axes, rules, baseline and default constraints of one space."""
    import search_spaces

    loaded = search_spaces.load(space)
    if as_json:
        _print_json({**loaded.model_dump(mode="json"), "candidates": loaded.size})
        return
    out().print(f"{loaded.name}: {loaded.description}", highlight=False, markup=False)
    _print_table(["axis", "values"], [[name, ", ".join(map(str, values))] for name, values in loaded.axes.items()])
    _print_lines("rules", [rule.name for rule in loaded.all_rules])
    _print_lines("baseline", [str(loaded.baseline_candidate)])
    _print_lines("constraints", loaded.constraints or ["none"])
    _print_lines("workload", [loaded.workload])
    out().print(f"candidates: {loaded.size:,}", highlight=False)


@app.command()
def validate(space: Space, as_json: AsJson = False) -> None:
    """Check a space: keys, components, rules, baseline, constraints, workload; exit 2 with one line when wrong."""
    import nas.workload
    import search_spaces
    from nas.constraints import parse

    loaded = search_spaces.load(space)
    nas.workload.of_space(loaded)
    for text in loaded.constraints:
        parse(text)
    if as_json:
        _print_json({"space": loaded.name, "valid": True, "candidates": loaded.size})
        return
    out().print(f"{loaded.name}: valid, {loaded.size:,} candidates", highlight=False, markup=False)


@app.command()
def profile(
    space: Space,
    workload: Annotated[
        str | None,
        typer.Option(help="a shipped workload by name, or the path of a YAML file; default: the space's own"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="also latencies: of measured blocks, or estimated for a device elsewhere")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Size of a space, the spread of parameters, FLOPs and memory, and which constraints can be met."""
    import hardware_profiles
    import nas.workload
    import search_spaces
    from nas import space_profile

    loaded = search_spaces.load(space)
    asked = nas.workload.of_space(loaded, workload)
    if device is None:
        found = space_profile.profile(loaded, asked)
    else:
        from nas.search.problem import is_measurable

        hardware, most = hardware_profiles.load(device), None
        if is_measurable(hardware):
            timings = space_profile.stored_timings(hardware, loaded, asked)
            latency_of = space_profile.composed_of(timings, asked)
        else:
            latency_of, most = space_profile.estimated_on(hardware, asked), space_profile.MOST_ESTIMATED
        found = space_profile.profile(loaded, asked, device=hardware.id, latency_of=latency_of, most=most)
    if as_json:
        _print_json(found.to_dict())
    else:
        _print_profile(found)


def _print_profile(found: SpaceProfile) -> None:
    drawn = "" if found.surveyed == found.size else f", {found.surveyed:,} of them drawn"
    out().print(
        f"{found.space}: {found.size:,} candidates of {found.combinations:,} combinations{drawn}; "
        f"workload {found.workload}" + (f"; device {found.device}" if found.device else ""),
        highlight=False,
        markup=False,
    )
    rows = []
    for name, spread in found.figures.items():
        scale, unit = UNITS.get(name, (1, name.rpartition("_")[2] if name.endswith("_ms") else ""))
        values = [spread.low, spread.median, spread.high, found.baseline.get(name)]
        shown = ["not known" if value is None else f"{_shown(value / scale)} {unit}".strip() for value in values]
        rows.append([name, *shown, f"{spread.known:,}", spread.label])
    _print_table(["figure", "min", "median", "max", "baseline", "known for", "label"], rows)
    for reach in found.constraints:
        if reach.feasible is None or reach.limit is None:
            verdict = f"not decided: {reach.reason}"
        else:
            verdict = f"met by {reach.feasible:,} of {found.surveyed:,} candidates (limit {_shown(reach.limit)})"
        out().print(f"{reach.constraint}: {verdict}", highlight=False, markup=False)
    if found.feasible is not None and len(found.constraints) > 1:
        out().print(f"all constraints: met by {found.feasible:,} of {found.surveyed:,} candidates", highlight=False)


def _shown(value: float) -> str:
    """Four significant digits, without an exponent where people would write none."""
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:,.4g}"


def _print_table(columns: list[str], rows: list[list[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    out().print(table)


def _print_lines(title: str, lines: list[str]) -> None:
    out().print(f"{title}:", highlight=False)
    for line in lines:
        out().print(f"  {line}", highlight=False, markup=False)


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))
