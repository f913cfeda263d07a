"""nas report: what a run found, as a table, JSON, Markdown, CSV or HTML."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import out

if TYPE_CHECKING:
    from rich.console import Console

    from nas.report_text import Table
    from nas.run_folder import RunFolder


class Form(StrEnum):
    """Forms of the report."""

    md = "md"
    html = "html"
    csv = "csv"


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder, or latest.")] = "latest",
    json_: Annotated[bool, typer.Option("--json", help="One JSON document and nothing else.")] = False,
    form: Annotated[Form | None, typer.Option("--format", help="md, html or csv.")] = None,
    failures: Annotated[bool, typer.Option("--failures", help="What failed: reasons and traces.")] = False,
    compare: Annotated[
        str | None, typer.Option(metavar="RUN", help="Why another run differs: settings, versions, machine, trials.")
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(help='Solve again under these instead, evaluating nothing: "latency_ms <= 50% of baseline".'),
    ] = None,
) -> None:
    """Print the report of a run, also of one that is still searching."""
    from nas import report as reports
    from nas import run_folder
    from nas.errors import ConfigError

    if json_ + (form is not None) + failures > 1:
        raise ConfigError("give one of --json, --format and --failures, not several")
    if compare is not None:
        if form is not None or failures or constraint:
            raise ConfigError("--compare goes with --json or alone")
        _compare(run_folder.find(run), run_folder.find(compare), json_)
        return
    if constraint:
        if form is not None or failures:
            raise ConfigError("--constraint goes with --json or alone")
        _solve_again(run_folder.find(run), constraint, json_)
        return
    stored = reports.read(run_folder.find(run))
    found = reports.describe(stored)
    if json_:
        import json

        print(json.dumps(found, indent=2))
    elif form is not None:
        print(_formatted(form, found, reports.trial_rows(stored)), end="")
    elif failures:
        print(_failures(found), end="")
    else:
        print_front(found, out())


def _failures(found: dict[str, Any]) -> str:
    """A line a failure, its trace indented below."""
    from textwrap import indent

    told = [(f"{each['key']}  {each['reason']}", each["traceback"]) for each in found["failures"]]
    told += [
        (f"proxy {each['proxy']} gave no value {each['count']} times  {each['reason']}", each["traceback"])
        for each in found["proxy_failures"]
    ]
    return "".join(f"{line}\n{indent((trace or '').rstrip(), '    ')}\n" for line, trace in told)


def _compare(here: RunFolder, there: RunFolder, json_: bool) -> None:
    """A line a difference: its name, the value here, the value there."""
    import json

    from nas.compare import compare

    found = compare(here, there)
    if json_:
        print(json.dumps(found, indent=2))
        return
    for subject in ("settings", "environment"):
        if not found[subject]:
            print(f"{subject:12} the same")
        for name, values in found[subject].items():
            print(f"{subject:12} {name}: {' -> '.join(json.dumps(value) for value in values)}")
    print(f"{'trials':12} the first {found['same_trials']} of {' and '.join(map(str, found['trials']))} are the same")
    for value in found["first_difference"] or ():
        print(f"{'then':12} {json.dumps(value)}")


def _solve_again(folder: RunFolder, constraints: list[str], json_: bool) -> None:
    from nas.report_text import solved_table, solved_words
    from nas.search.resolve import resolve

    found = resolve(folder, constraints)
    if json_:
        import json

        print(json.dumps(found, indent=2))
        return
    _print_table(solved_table(found), f"{found['study']}: {'; '.join(constraints)}", out())
    _print_lines(solved_words(found), out())


def _formatted(form: Form, found: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    from nas.report_html import html
    from nas.report_text import as_csv, markdown

    if form is Form.csv:
        return as_csv(rows)
    return markdown(found) if form is Form.md else html(found, rows)


def print_front(found: dict[str, Any], console: Console) -> None:
    """The verdict, then the front as a table; labels stand in the headings."""
    from nas.report_text import front_table, work_done

    shown = front_table(found)
    if shown.rows:
        _print_table(shown, f"{found['study']}: front, best first", console)
    _print_lines([*found["verdict"], work_done(found)], console)


def _print_lines(lines: list[str], console: Console) -> None:
    for line in lines:
        console.print(f"- {line}", markup=False, highlight=False, soft_wrap=True)


def _print_table(shown: Table, title: str, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=Text(title), title_justify="left")
    for name, heading in zip(shown.titles, shown.headings, strict=True):
        text = name in ("key", "design")
        drawn.add_column(Text(heading), justify="left" if text else "right", overflow="fold", no_wrap=name == "key")
    for row in shown.rows:
        drawn.add_row(*map(Text, row))
    console.print(drawn)
