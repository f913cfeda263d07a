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
    failures: Annotated[bool, typer.Option("--failures", help="Failed trials with their reasons.")] = False,
) -> None:
    """Print the report of a run."""
    from nas import report as reports
    from nas import run_folder
    from nas.report_html import html

    folder = run_folder.find(run)
    if form is Form.csv:
        print(reports.trials_csv(folder), end="")
        return
    found = reports.document(folder)
    if json_:
        import json

        print(json.dumps(found, indent=2))
    elif form is Form.md:
        print(reports.markdown(found), end="")
    elif form is Form.html:
        print(html(found))
    elif failures:
        for failure in found["failures"]:
            print(f"{failure['key']}  {failure['reason']}")
    else:
        print_front(found, out())


def print_front(found: dict[str, Any], console: Console) -> None:
    """The front as a table under its verdicts."""
    from rich.table import Table

    from nas.report import COLUMNS, front_rows, summary

    table = Table(title=f"{found['study']}: front, best trained first")
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for row in front_rows(found):
        table.add_row(*row)
    console.print(table)
    for line in summary(found):
        console.print(line, markup=False, highlight=False)
