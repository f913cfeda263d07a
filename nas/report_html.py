"""The report as one self-contained page: verdict, front, figures, details."""

from __future__ import annotations

from html import escape
from typing import Any

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:2rem auto;padding:0 1rem;color:#1c2733}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{margin-top:2rem;font-size:1.15rem}
table{border-collapse:collapse;width:100%;font-size:13px}th,td{padding:.35rem .5rem;border-bottom:1px solid #dde3e9;text-align:left;vertical-align:top}
th{background:#f3f6f9}tr:first-child td{background:#f2fbf4}.muted{color:#63707d}.box{background:#f3f6f9;border-radius:8px;padding:.6rem 1rem}
"""


def html(found: dict[str, Any]) -> str:
    """A page that needs no network."""
    from nas.figures import front_figure, loss_figure
    from nas.report import COLUMNS, front_rows, summary

    figures = [front_figure(found)]
    if any(entry["trained"] for entry in found["front"]):
        figures.append(loss_figure(found))
    drawn = [
        figure.to_html(full_html=False, include_plotlyjs=index == 0, config={"displaylogo": False})
        for index, figure in enumerate(figures)
    ]
    asked = f"space {found['space']}, device {', '.join(found['devices'])}, workload {found['workload']}"
    limits = "; ".join(found["constraints"]) or "none"
    verdicts = "".join(f"<li>{escape(line)}</li>" for line in summary(found))
    details = [
        (entry["key"], *(_number(entry["proxies"].get(name)) for name in _proxy_names(found)), _number(entry["params"]))
        for entry in found["front"]
    ]
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(found["study"])}</title>
<style>{STYLE}</style>
<h1>{escape(found["study"])}</h1>
<p class="muted">{escape(asked)}; objectives {escape(", ".join(found["objectives"]))}; constraints: {escape(limits)}</p>
<div class="box"><ul>{verdicts}</ul></div>
<h2>Front, best trained first</h2>{_table(COLUMNS, front_rows(found))}
<p class="muted">Intervals in brackets. predicted:prior is an estimate from structure; trained:short is accuracy on open questions of held-out
images after the stated steps; composed latency is summed from measured blocks, measured is end to end (composed error in parentheses).</p>
<h2>Figures</h2>{"".join(drawn)}
<h2>Proxies of the front (not trained), with the params baseline</h2>
{_table(("key", *_proxy_names(found), "params (counted)"), details)}
</html>"""


def _proxy_names(found: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for entry in found["front"] for name in entry["proxies"] if name != "params"))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
