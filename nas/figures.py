"""Figures of a report, as plotly figures. Axis titles and hover texts carry the label of every number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nas.report_checks import design, interval, latency_text, number
from search_spaces import Candidate

Entry = dict[str, Any]
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c6d31")
PARTS = {
    "preprocess_ms": ("preprocess", "#b8c4d0"), "vision_ms": ("vision", "#0072b2"),
    "projector_ms": ("projector", "#cc79a7"), "prefill_ms": ("prefill", "#e69f00"), "decode": ("decode", "#009e73"),
}  # fmt: skip
MUTED, INK, FRONT = "#8795a3", "#1c2733", "#1c2733"
SHORT_KEY = 6


def front_figure(found: dict[str, Any], rows: Sequence[dict[str, Any]] = ()) -> Any:
    """Predicted quality over composed latency: every trial, the front with its intervals, finalists as measured."""
    import plotly.graph_objects as go

    device, figure = found["devices"][0], go.Figure()
    on_front = {entry["key"] for entry in found["front"]}
    _cloud(figure, rows, on_front, device)
    entries = sorted(found["front"], key=lambda entry: entry["latency"][device]["latency_ms"])
    latency = [entry["latency"][device] for entry in entries]
    quality = [entry["quality"] for entry in entries]
    figure.add_scatter(
        x=[item["latency_ms"] for item in latency],
        y=[item["value"] for item in quality],
        error_x=_error(latency, "latency_ms"), error_y={**_error(quality, "value"), "color": "rgba(99,112,125,.22)"},
        mode="lines+markers", name="front", line={"shape": "hv", "color": FRONT, "width": 1.5},
        marker={"size": 9, "color": FRONT}, text=[_hover(found, entry) for entry in entries],
        hovertemplate="%{text}<extra>front</extra>",
    )  # fmt: skip
    proven = [entry for entry in entries if device in entry["measured"]]
    if proven:
        figure.add_scatter(
            x=[entry["measured"][device]["latency_ms"] for entry in proven],
            y=[entry["quality"]["value"] for entry in proven],
            mode="markers", name="finalists, latency measured end to end",
            marker={"symbol": "star", "size": 16, "color": "#d7263d", "line": {"color": "white", "width": 1}},
            text=[_hover(found, entry) for entry in proven], hovertemplate="%{text}<extra>measured</extra>",
        )  # fmt: skip
    _mark_limits(figure, found, device)
    labels = ", ".join(sorted({item["label"] for item in quality})) or "predicted:prior"
    if latency:  # what is far beyond the front is drawn, but not shown before a double click
        figure.update_xaxes(range=[0, 1.6 * max(item["latency_ms"] for item in latency)])
    composed = ", ".join(sorted({item["label"] for item in latency})) or "composed"
    return _layout(figure, f"latency of the answer, ms ({composed}) on {device}", f"quality ({labels})")


def _cloud(figure: Any, rows: Sequence[dict[str, Any]], on_front: set[str], device: str) -> None:
    """What is not on the front: infeasible in grey, the rest by encoder."""
    shown = [row for row in rows if row["key"] not in on_front and f"latency_ms@{device}" in row and "quality" in row]
    colors = {"infeasible": MUTED, **_encoder_colors(rows)}
    for name, color in colors.items():
        grey = name == "infeasible"
        members = [row for row in shown if name == ("infeasible" if row["status"] != "complete" else row["encoder"])]
        figure.add_scatter(
            x=[row[f"latency_ms@{device}"] for row in members], y=[row["quality"] for row in members],
            mode="markers", name=name, opacity=0.75,
            marker={"color": color, "size": 6 if grey else 8, "symbol": "x-thin" if grey else "circle",
                    "line": {"width": 1, "color": color if grey else "white"}},
            text=[_trial_hover(row, device) for row in members], hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip


def _mark_limits(figure: Any, found: dict[str, Any], device: str) -> None:
    for text, bound in found["limits"].items():
        if bound is not None and text.split()[0] in ("latency_ms", f"latency_ms@{device}"):
            figure.add_vline(
                x=bound, line={"dash": "dash", "color": MUTED, "width": 1}, annotation_text=text,
                annotation_position="bottom left", annotation_font={"size": 11, "color": "#63707d"},
            )  # fmt: skip


def proof_figure(found: dict[str, Any]) -> Any:
    """Trained accuracy over measured latency, and over the quality that was predicted, with 95 % intervals."""
    from plotly.subplots import make_subplots

    device, entries = found["devices"][0], finalists(found)
    left_out = {one["key"]: one["score"] for one in found["baseline_check"]["models"]} if found["score_fit"] else {}
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.04)
    for place, entry in enumerate(entries):
        trained, latency = entry["trained"], entry["measured"].get(device) or entry["latency"][device]
        predicted = entry["quality"]
        if entry["key"] in left_out:  # what the score says of it that was fitted without it
            half = (predicted["high"] - predicted["low"]) / 2
            middle = left_out[entry["key"]]
            predicted = {"value": middle, "low": middle - half, "high": middle + half}
        for column, item, value in ((1, latency, "latency_ms"), (2, predicted, "value")):
            figure.add_scatter(
                x=[item[value]], y=[trained["accuracy_open"]], error_x=_error([item], value),
                error_y=_error([trained], "accuracy_open"), name=_name(entry), legendgroup=entry["key"],
                showlegend=column == 1, mode="markers",
                marker={"size": 12, "color": PALETTE[place % len(PALETTE)],
                        "symbol": "circle" if item is not entry["latency"][device] else "circle-open"},
                text=[_hover(found, entry)], hovertemplate="%{text}<extra></extra>", row=1, col=column,
            )  # fmt: skip
    blind = entries[0]["trained"]["blind_open"]
    figure.add_hline(
        y=blind, line={"dash": "dash", "color": MUTED, "width": 1},
        annotation_text=f"blind baseline {number(blind)} (majority answer)", annotation_position="bottom right",
        annotation_font={"size": 11, "color": "#63707d"}, row=1, col=1,
    )  # fmt: skip
    figure.add_hline(y=blind, line={"dash": "dash", "color": MUTED, "width": 1}, row=1, col=2)
    labels = sorted({(e["measured"].get(device) or e["latency"][device])["label"] for e in entries})
    figure.update_xaxes(title_text=f"latency of the answer, ms ({', '.join(labels)})", rangemode="tozero", col=1)
    figure.update_xaxes(title_text=f"quality ({found['baseline_check']['score_label']})", col=2)
    figure.update_yaxes(title_text=f"accuracy, open questions ({entries[0]['trained']['label']})", col=1)
    return _layout(figure, None, None)


def parts_figure(found: dict[str, Any]) -> Any:
    """Where the time of an answer goes, composed for all and measured for the finalists."""
    import plotly.graph_objects as go

    device, figure = found["devices"][0], go.Figure()
    entries = sorted(
        [*found["front"], *found["off_front"]], key=lambda e: e["latency"][device]["latency_ms"], reverse=True
    )
    bars = []
    for entry in entries:
        if device in entry["measured"]:
            bars.append((f"{entry['key'][:SHORT_KEY]} measured", entry, entry["measured"][device]))
        bars.append(
            (f"{entry['key'][:SHORT_KEY]} {entry['latency'][device]['label']}", entry, entry["latency"][device])
        )
    for part, (title, color) in PARTS.items():
        spans = [
            latency["latency_ms"] - latency["ttft_ms"] if part == "decode" else latency["parts"][part]
            for _, _, latency in bars
        ]
        figure.add_bar(
            y=[name for name, _, _ in bars], x=spans, orientation="h", name=title, marker={"color": color},
            text=[f"{design(entry)}<br>{title} {number(span)} ms of {number(latency['latency_ms'])} ms, "
                  f"{latency['label']}" for span, (_, entry, latency) in zip(spans, bars, strict=True)],
            textposition="none", hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(barmode="stack", bargap=0.25)
    figure.update_yaxes(tickfont={"family": "ui-monospace, monospace", "size": 11})
    return _layout(figure, f"ms on {device}", None, height=max(260, 110 + 21 * len(bars)))


def loss_figure(found: dict[str, Any]) -> Any:
    """Training loss of every finalist."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for place, entry in enumerate(finalists(found)):
        if entry["trained"]["losses"]:
            steps, losses = zip(*entry["trained"]["losses"], strict=True)
            figure.add_scatter(
                x=steps, y=losses, mode="lines", name=_name(entry),
                line={"color": PALETTE[place % len(PALETTE)], "width": 2},
            )  # fmt: skip
    labels = ", ".join(sorted({entry["trained"]["label"] for entry in finalists(found)}))
    return _layout(figure, "training step", f"loss, nats ({labels})")


def params_figure(rows: Sequence[dict[str, Any]]) -> Any:
    """Is the score more than the parameter count? Predicted quality over params, every scored design."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for encoder, color in _encoder_colors(rows).items():
        members = [row for row in rows if row["status"] == "complete" and row["encoder"] == encoder]
        figure.add_scatter(
            x=[row["params"] / 1e6 for row in members], y=[row["quality"] for row in members], mode="markers",
            name=encoder, marker={"size": 8, "color": color, "line": {"width": 1, "color": "white"}},
            text=[_trial_hover(row, None) for row in members], hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    return _layout(figure, "params, M (counted)", "quality (predicted:prior)")


def finalists(found: dict[str, Any]) -> list[Entry]:
    """The trained entries, best first."""
    trained = [entry for entry in [*found["front"], *found["off_front"]] if entry["trained"]]
    return sorted(trained, key=lambda entry: entry["trained"]["accuracy_open"], reverse=True)


def _encoder_colors(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The same color for an encoder in every figure."""
    names = sorted({row["encoder"] for row in rows})
    return {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(names)}


def _name(entry: Entry) -> str:
    return f"{entry['key'][:SHORT_KEY]} {design(entry)}"


def _error(items: Sequence[dict[str, Any]], value: str) -> dict[str, Any]:
    return {
        "type": "data", "array": [item["high"] - item[value] for item in items], "thickness": 1, "width": 3,
        "arrayminus": [item[value] - item["low"] for item in items], "color": "rgba(99,112,125,.45)",
    }  # fmt: skip


def _hover(found: dict[str, Any], entry: Entry) -> str:
    lines = [
        f"<b>{design(entry)}</b>", entry["key"],
        f"quality {interval(entry['quality'], 'value')} {entry['quality']['label']}",
        latency_text(found, entry),
        f"{number(entry['params'] / 1e6)} M params {entry['params_label']}, {entry['visual_tokens']} visual tokens",
    ]  # fmt: skip
    if trained := entry["trained"]:
        lines.insert(2, f"open accuracy {interval(trained, 'accuracy_open')} {trained['label']}")
    return "<br>".join(lines)


def _trial_hover(row: dict[str, Any], device: str | None) -> str:
    candidate = {name: row[name] for name in Candidate.model_fields if name in row}
    lines = [
        f"<b>{design({'candidate': candidate})}</b>", f"{row['key']}, trial {row['trial']}",
        f"quality {number(row['quality'])} [{number(row['quality_low'])}, {number(row['quality_high'])}] "
        f"{row['quality_label']}",
        f"{number(row['params'] / 1e6)} M params {row['params_label']}",
    ]  # fmt: skip
    if device:
        lines.append(f"{number(row[f'latency_ms@{device}'])} ms {row[f'latency_label@{device}']}")
    return "<br>".join([*lines, f"violates {row['violated']}"] if row["violated"] else lines)


def _layout(figure: Any, x_title: str | None, y_title: str | None, height: int = 440) -> Any:
    figure.update_layout(
        template="plotly_white", height=height, margin={"l": 60, "r": 20, "t": 30, "b": 50}, hovermode="closest",
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        hoverlabel={"align": "left"},
    )  # fmt: skip
    figure.update_yaxes(exponentformat="power")
    if x_title:
        figure.update_xaxes(title_text=x_title)
    if y_title:
        figure.update_yaxes(title_text=y_title)
    return figure
