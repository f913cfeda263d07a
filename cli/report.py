"""nas report: what a run found, as a table, JSON, Markdown, CSV or HTML."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import out

if TYPE_CHECKING:
    from rich.console import Console


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
) -> None:
    """Print the report of a run, also of one that is still searching."""
    from nas import report as reports
    from nas import run_folder
    from nas.errors import ConfigError

    if json_ + (form is not None) + failures > 1:
        raise ConfigError("give one of --json, --format and --failures, not several")
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


def _formatted(form: Form, found: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    from nas.report_html import html
    from nas.report_text import as_csv, markdown

    if form is Form.csv:
        return as_csv(rows)
    return markdown(found) if form is Form.md else html(found, rows)


def print_front(found: dict[str, Any], console: Console) -> None:
    """The verdict, then the front as a table; labels stand in the headings."""
    from rich.table import Table
    from rich.text import Text

    from nas.report_text import front_table, work_done

    shown = front_table(found)
    table = Table(title=f"{found['study']}: front, best first", title_justify="left")
    for title, heading in zip(shown.titles, shown.headings, strict=True):
        text = title in ("key", "design")
        table.add_column(Text(heading), justify="left" if text else "right", overflow="fold", no_wrap=title == "key")
    for row in shown.rows:
        table.add_row(*map(Text, row))
    if shown.rows:
        console.print(table)
    for line in [*found["verdict"], work_done(found)]:
        console.print(f"- {line}", markup=False, highlight=False, soft_wrap=True)
