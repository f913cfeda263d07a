"""The report as one self-contained page: verdict, front, figures, details. It needs no network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from nas.durations import duration
from nas.export import ASKED
from nas.report_checks import design, number
from nas.report_limits import limit_text
from nas.report_text import (
    Table,
    finalists_table,
    front_table,
    truth_table,
    truth_words,
    work_done,
)

PAGE = Path(__file__).with_name("report_page.html")
TEXT_COLUMNS = {"key", "design", "status", "score", "violates or fails"}
CONTROLS = {"displayModeBar": False, "responsive": True}  # drag zooms, a double click goes back
LABELS = {
    "trained:short": "accuracy on open (not yes/no) questions of held-out images after the stated steps; 95 % Wilson interval",
    "predicted:prior": "an estimate before any training of this run: from the shipped benchmark where it knows most encoders, else by the structure alone; not calibrated for this task",
    "predicted:anchored": "fitted on models of this very space that were trained for this run; interval: 80 %, from the spread of the fit",
    "measured": "whole requests timed end to end on the device; from the sum of the fastest parts to the 90th percentile",
    "composed": "summed from blocks that were measured on the device; interval: block noise and the method's error",
    "counted": "exact count",
    "closed-form": "weights, KV cache and largest activations by formula, fp32",
    "probe batch, untrained": "a proxy computed on a small probe batch; ranks at best, has no unit",
}


def html(found: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """`found` is the document, `rows` every trial (nas.report.trial_rows)."""
    from plotly.offline import get_plotlyjs

    finalists = finalists_table(found)
    proven = any(row["inside_interval"] is not None for row in found["composed_against_measured"])
    beats = any(e["trained"] and e["trained"]["low"] > e["trained"]["blind_open"] for e in found["front"])
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        study=escape(found["study"]),
        plotly=get_plotlyjs(),
        asked=_asked(found),
        verdict="".join(_sentence(line) for line in found["verdict"]),
        verdict_class="" if proven and beats else "open",
        front=_table(front_table(found), best=bool(finalists.rows)) if found["front"] else "<p>Empty.</p>",
        front_note=escape("; ".join(filter(None, ["Values as point [low, high]", found["label_warning"]]))) + ".",
        finalists=f"<h2>Finalists: predicted, trained, measured</h2>{_table(finalists)}" if finalists.rows else "",
        truth=f"<h2>Score against training</h2><p class='note'>{escape(truth_words(found))}</p>{_table(truth_table(found))}"
        if found["score_fit"]
        else "",
        figures=_figures(found, rows),
        proxy_check=_table(_proxy_table(found)),
        trials=_trials(found, rows),
        failures=_failures(found),
        labels="".join(f"<dt>{_tag(name)}</dt><dd>{escape(text)}</dd>" for name, text in LABELS.items()),
        work=escape(work_done(found)),
        settings=escape(json.dumps({"search": found["search"], "environment": found["environment"]}, indent=2)),
        next=escape(_next(found)),
    )


def _sentence(line: str) -> str:
    """A finding, its subject in bold."""
    subject, colon, rest = line.partition(": ")
    return f"<p><b>{escape(subject)}{colon}</b>{escape(rest)}</p>" if colon else f"<p>{escape(line)}</p>"


def _shown_or_heard(request: dict[str, int]) -> str:
    """The pictures or the sound of one request; of several turns, of each."""
    thing = "clip" if request["seconds"] or request["frames"] > 1 else "image"
    said = f"{request['images']} {thing}{'s' * (request['images'] > 1)}"
    said += f" of {request['seconds']} s" * bool(request["seconds"])
    said += f" of {request['frames']} frames" * (request["frames"] > 1)
    return said + f" in each of {request['turns']} turns" * (request["turns"] > 1)


def _asked(found: dict[str, Any]) -> str:
    request, counts = found["request"], found["counts"]
    asked = {
        "space": f"{found['space']} ({found['search']['space_size']} designs)",
        "device": ", ".join(found["devices"]),
        "workload": f"{found['workload']}: {_shown_or_heard(request)}, {request['prompt_tokens']} prompt tokens, "
        f"{request['new_tokens']} new tokens, batch {request['batch']}",
        "objectives": ", ".join(found["objectives"]),
        "constraints": "; ".join(limit_text(found, text) for text in found["constraints"]) or "none",
        "evaluated": f"{counts['complete']} ({counts['failed']} failed)",
        "wall clock": duration(found["wall_s"]) if found["wall_s"] else "not ended yet",
    }
    return "".join(f"<span><b>{name}</b>{escape(text)}</span>" for name, text in asked.items())


def _figures(found: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    from nas import figures

    trained = figures.finalists(found)
    drawn = [
        (
            "wide", "Predicted front",
            "Every design that was drawn; error bars are the intervals of the front. Hover for the design, drag to zoom, double-click to reset.",
            figures.front_figure(found, rows),
        )
    ]  # fmt: skip
    if trained:
        drawn += [
            (
                "wide", "What training and measuring showed",
                "Left: what the finalists reach for their latency. Right: whether the prediction ordered them as training did. "
                "Bars are 95 % intervals of accuracy, and the stated intervals of latency and prediction.",
                figures.proof_figure(found),
            ),
            ("", "Training loss of the finalists", "One recipe, one number of steps.", figures.loss_figure(found)),
        ]  # fmt: skip
    if rows:
        caption = "A tight curve says that the score is little else than the parameter count."
        drawn.append(("" if trained else "wide", "Prediction against params", caption, figures.params_figure(rows)))
    if found["front"]:
        caption = "By part; measured beside composed where a finalist was timed end to end."
        drawn.append(("wide", "Where the time of an answer goes", caption, figures.parts_figure(found)))
    return "".join(
        f'<figure class="{place}"><h3>{escape(title)}</h3><figcaption>{escape(caption)}</figcaption>'
        + figure.to_html(full_html=False, include_plotlyjs=False, config=CONTROLS)
        + "</figure>"
        for place, title, caption, figure in drawn
    )


def _proxy_table(found: dict[str, Any]) -> Table:
    def cell(value: float | None) -> str:
        return "–" if value is None else f"{value:+.2f}"

    rows = []
    for row in found["proxy_check"]:
        params, trained = row["against_params"], row["against_trained"]
        baseline = row["name"] == "params"
        name = "params (the baseline)" if baseline else "predicted quality" if row["name"] == "quality" else row["name"]
        by_params = (
            ("", "", "") if baseline else (cell(params["kendall_tau"]), cell(params["spearman_rho"]), params["n"])
        )
        rows.append(
            (name, *map(str, by_params), cell(trained["kendall_tau"]), cell(trained["spearman_rho"]), str(trained["n"]))
        )
    titles = ("score", "tau", "rho", "n", "tau", "rho", "n")
    return Table(titles, ("", *["against params"] * 3, *["against trained accuracy"] * 3), rows)


def _trials(found: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    device = found["devices"][0]
    proxies = list(dict.fromkeys(n for row in rows for n in row if n.startswith("proxy:") and n != "proxy:params"))
    quality = _shared(rows, "quality_label")
    composed = _shared(rows, f"latency_label@{device}")
    columns = [
        ("trial", "", "trial", "d"), ("key", "", "key", ""), ("design", "", "", ""), ("status", "", "status", ""),
        ("quality", quality, "quality", "n"), ("latency ms", composed, f"latency_ms@{device}", "n"),
        ("params M", "counted", "params", "M"), ("GiB", "closed-form", "memory_gib", "n"),
        ("visual tokens", "counted", "visual_tokens", "d"),
        *((name.removeprefix("proxy:"), "probe batch, untrained", name, "n") for name in proxies),
        ("violates or fails", "", "violated", ""),
    ]  # fmt: skip
    head = "".join(_heading(title, label) for title, label, _, _ in columns)
    body = "".join(
        f'<tr class="{escape(row["status"])}">'
        + "".join(_trial_cell(row, name, form) for _, _, name, form in columns)
        + "</tr>"
        for row in rows
    )
    return f'<table class="sorts filters"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _shared(rows: Sequence[dict[str, Any]], name: str) -> str:
    return " or ".join(sorted({row[name] for row in rows if name in row}))


def _trial_cell(row: dict[str, Any], name: str, form: str) -> str:
    if not form:
        text = row["error"] or row["violated"] if name == "violated" else row[name] if name else _row_design(row)
        return f'<td class="{"mono" if name == "key" else ""}">{escape(str(text))}</td>'
    value = row.get(name)
    if value is None:
        return '<td class="number" data-value="">–</td>'
    text = str(value) if form == "d" else number(value / 1e6 if form == "M" else value)
    return f'<td class="number" data-value="{value}">{text}</td>'


def _row_design(row: dict[str, Any]) -> str:
    from search_spaces import Candidate

    return design({"candidate": {name: row[name] for name in Candidate.model_fields}})


def _failures(found: dict[str, Any]) -> str:
    if not found["failures"]:
        return ""
    rows: list[tuple[str, ...]] = [(failure["key"], failure["reason"] or "") for failure in found["failures"]]
    return f"<h2>Failed</h2>{_table(Table(('key', 'reason'), ('', ''), rows))}"


def _next(found: dict[str, Any]) -> str:
    lines = [f"nas report {found['study']} --json", f"nas dashboard {found['study']}"]
    if any(entry["trained"] for entry in found["front"]):
        usual = found["search"]["data"] is None
        asked = f'picture.png "{ASKED}"' if usual else 'FILE "QUESTION"'
        lines += [f"nas export {found['study']} --rank 1 --to best-model", f"nas ask best-model {asked}"]
    else:
        lines.append(f"nas resume {found['study']}")
    return "\n".join(lines)


def _table(shown: Table, best: bool = False) -> str:
    """The key, where there is a design too, moves below it: pages are narrower than tables."""
    merged = "design" in shown.titles and "key" in shown.titles
    places = [place for place, title in enumerate(shown.titles) if not (merged and title == "key")]
    key = shown.titles.index("key") if merged else None
    head = "".join(_heading(shown.titles[place], shown.labels[place]) for place in places)
    body = ""
    for index, row in enumerate(shown.rows):
        cells = "".join(
            _cell(
                shown.titles[place], row[place], row[key] if key is not None and shown.titles[place] == "design" else ""
            )
            for place in places
        )
        body += f'<tr class="{"best" if best and index == 0 else ""}">{cells}</tr>'
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _heading(title: str, label: str) -> str:
    kind = "" if title in TEXT_COLUMNS else "number"
    return f'<th class="{kind}"><span class="title">{escape(title)}</span>{"<br>" + _tag(label) if label else ""}</th>'


def _cell(title: str, text: str, key: str = "") -> str:
    kind = "mono" if title == "key" else "text" if title in TEXT_COLUMNS else "number"
    if key:  # the language model on a second line, with the key
        vision, _, lm = text.rpartition(" ")
        return f'<td class="text">{escape(vision)}<br>{escape(lm)} <code class="muted">{escape(key)}</code></td>'
    value, bracket, rest = text.partition(" [")
    shown = f'{escape(value)} <span class="range">[{escape(rest)}</span>' if bracket else escape(text)
    return f'<td class="{kind}">{shown}</td>'


def _tag(label: str) -> str:
    meaning = LABELS.get(label, "")
    return f'<span title="{escape(meaning)}" class="tag {escape(label.partition(":")[0].partition(" ")[0].rstrip(","))}">{escape(label)}</span>'
