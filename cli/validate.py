"""nas proxies validate: whether scores rank a table of trained models as training did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import out

if TYPE_CHECKING:
    from nas.quality.columns import Row
    from nas.quality.evidence import NoiseCeiling, Ranking
    from nas.quality.table_anchors import AnchoredRanking, Spread


def validate_table(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, JSON or JSON lines of trained models: one row a model.")],
    truth: Annotated[
        str | None,
        typer.Option(
            help="Column of the trained result; a dot goes into nested fields, a * takes the mean of several."
        ),
    ] = None,
    params: Annotated[
        str | None, typer.Option(help="Column of the parameter count. Default: by name, or counted.")
    ] = None,
    lower_is_better: Annotated[
        bool | None, typer.Option(help="The truth is a loss or perplexity. Default: by its name.")
    ] = None,
    latency: Annotated[
        str | None, typer.Option(help="Column of a latency or another cost: compares at equal cost.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="Without --latency, designs of ours are compared at equal estimated latency on it.")
    ] = "raspberry-pi-5-8gb",
    depth: Annotated[str | None, typer.Option(help="Column of the depth, where no configuration says it.")] = None,
    width: Annotated[
        str | None, typer.Option(help="Column of the width; with --depth, their products join in.")
    ] = None,
    design: Annotated[
        str | None,
        typer.Option(
            help="Column that names the design: repeated ones give the noise ceiling, and are no test of their anchor."
        ),
    ] = None,
    where: Annotated[list[str] | None, typer.Option(help="column=value: only rows for which it holds.")] = None,
    anchors: Annotated[
        int, typer.Option(min=0, help="Also: fit the anchored score on this many rows and rank the others.")
    ] = 0,
    draws: Annotated[int, typer.Option(min=1, help="How often other anchors are drawn.")] = 40,
    predictions: Annotated[
        Path | None, typer.Option(help="Published groups: write the held-out score, a line a row of the table.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Rank every numeric column against the truth: overall, at equal cost (within 10 %), and at the top.

    Structure is read from configurations in the rows. A table of published groups is ranked group by group.
    """
    from nas.quality import groups
    from nas.quality.columns import falls, params_column, truth_column, with_columns
    from nas.quality.columns import where as rows_where
    from nas.quality.derived import derive, estimated_latency
    from nas.quality.evidence import compare, noise_ceiling
    from nas.quality.table_anchors import rank_by_anchors
    from nas.quality.tables import read_table

    read = rows_where(read_table(table), where or [])
    if groups.is_published(read):
        _published(read, predictions, as_json)
        return
    derived = derive(read)
    goal, rows = truth_column(read, truth)
    if derived:
        rows = with_columns(rows, derived.columns)
    if derived and derived.kind == "candidates" and latency is None:
        latency, times = estimated_latency(read, device)
        rows = with_columns(rows, {latency: times})
    size = params_column(rows, params, derived.params if derived else None)
    lower = falls(goal) if lower_is_better is None else lower_is_better
    scores = compare(
        rows, truth=goal, params=size, lower_is_better=lower, latency=latency, depth=depth, width=width
    )  # fmt: skip
    ceiling = noise_ceiling(rows, truth=goal, design=design) if design else None
    anchored = None
    if anchors:
        anchored = rank_by_anchors(
            rows, derived, truth=goal, params=size, lower=lower, latency=latency, design=design, count=anchors,
            draws=draws,
        )  # fmt: skip
    if as_json:
        document = {
            "rows": len(rows), "truth": goal, "lower_is_better": lower, "params": size, "latency": latency,
            "structure": derived.kind if derived else None, "noise_ceiling": ceiling and ceiling.to_dict(),
            "scores": [score.to_dict() for score in scores], "anchored": anchored and anchored.to_dict(),
        }  # fmt: skip
        print(json.dumps(document, indent=2))
        return
    note = f"{len(rows)} rows, read as {derived.kind}" if derived else f"{len(rows)} rows, no configurations in them"
    out().print(f"{note}; truth {goal} ({'lower' if lower else 'higher'} is better); params {size}", highlight=False)
    _show(scores, size, latency)
    _conclude(ceiling, anchored)


def _show(scores: list[Ranking], params: str, latency: str | None) -> None:
    from rich.table import Table

    shown = Table("score", "n", "tau", "90 %", "rho", "tau at equal params", "pairs")
    if latency:
        shown.add_column(f"tau at equal {latency}")
        shown.add_column("pairs")
    shown.add_column("top 10 % shared")
    for row in scores:
        figures = [str(row.n), _figure(row.tau), _interval(row.tau_low, row.tau_high), _figure(row.rho)]
        figures += [_figure(row.tau_equal_params), str(row.pairs_equal_params)]
        figures += [_figure(row.tau_equal_latency), str(row.pairs_equal_latency)] if latency else []
        shown.add_row(f"{row.name} (baseline)" if row.name == params else row.name, *figures, f"{row.top_overlap:.0%}")
    out().print(shown)


def _conclude(ceiling: NoiseCeiling | None, anchored: AnchoredRanking | None) -> None:
    if ceiling:
        text = f"noise ceiling, {ceiling.designs} designs trained again: rho {ceiling.rho:+.3f}, tau {ceiling.tau:+.3f}"
        out().print(text, highlight=False)
    if anchored:
        at_latency = anchored.tau_equal_latency
        figures = [
            f"tau {_spread(anchored.tau)}, rho {_spread(anchored.rho)}",
            f"tau at equal params {_spread(anchored.tau_equal_params)}",
            *([f"tau at equal latency {_spread(at_latency)}"] if at_latency else []),
            f"80 % intervals hold {anchored.coverage:.0%}",
        ]
        out().print(
            f"anchored score, {anchored.anchors} anchors, mean (10 % to 90 %) of {anchored.draws} draws, the other "
            f"{anchored.n} rows ranked: {'; '.join(figures)}",
            highlight=False,
        )


def _published(rows: list[Row], predictions: Path | None, as_json: bool) -> None:
    from statistics import fmean

    from nas.quality import groups

    found = groups.groups(rows)
    named = groups.by_group(found)
    held = groups.held_out(found, by=lambda group: group.name)
    strict = groups.held_out(found, by=lambda group: group.source)
    named["published score, leave one group out"] = _rhos(found, held)
    named["published score, leave one source out"] = _rhos(found, strict)
    means = dict(sorted(((name, fmean(values)) for name, values in named.items()), key=lambda item: -item[1]))
    seen = groups.shipped_saw(found)
    if predictions:
        _write(rows, found, held, predictions)
    if as_json:
        by_group = {name: dict(zip([g.name for g in found], values, strict=True)) for name, values in named.items()}
        intervals = {name: groups.interval(named[name]) for name in means}
        document = {
            "groups": len(found), "groups_in_shipped_fit": seen, "mean_rho": means, "interval": intervals,
            "rho": by_group,
        }  # fmt: skip
        print(json.dumps(document, indent=2))
        return
    out().print(f"mean Spearman inside {len(found)} groups (undefined counts as 0), 90 % over groups:", highlight=False)
    for name, value in means.items():
        low, high = groups.interval(named[name])
        out().print(f"  {value:+.3f} ({low:+.3f} to {high:+.3f})  {name}", highlight=False)
    if seen:
        out().print(
            f"the shipped weights were fitted on {seen} of these groups: that line is in sample", highlight=False
        )


def _rhos(found: list[Any], scores: list[list[float]]) -> list[float]:
    from nas.quality import groups

    return [groups.rho(column, group.truth) for group, column in zip(found, scores, strict=True)]


def _write(rows: list[Row], found: list[Any], held: list[list[float]], target: Path) -> None:
    """Held-out scores where a row is in a group that ranks, the shipped score elsewhere."""
    from nas.quality.published import score

    column = [score(row) for row in rows]
    for group, values in zip(found, held, strict=True):
        for place, value in zip(group.places, values, strict=True):
            column[place] = value
    target.write_text("published\n" + "".join(f"{value:.9g}\n" for value in column), encoding="utf-8")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:+.3f} to {high:+.3f}"


def _spread(one: Spread | None) -> str:
    return "-" if one is None else f"{one.mean:+.3f} ({one.low:+.3f} to {one.high:+.3f})"
