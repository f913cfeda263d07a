"""Figures of a report, as plotly figures."""

from __future__ import annotations

from typing import Any


def front_figure(found: dict[str, Any]) -> Any:
    """Predicted quality over composed latency with intervals, and where the finalists were measured."""
    import plotly.graph_objects as go

    device = found["devices"][0]
    entries = sorted(found["front"], key=lambda entry: entry["latency"][device]["latency_ms"])
    latency = [entry["latency"][device] for entry in entries]
    quality = [entry["quality"] for entry in entries]
    figure = go.Figure(
        go.Scatter(
            x=[item["latency_ms"] for item in latency],
            y=[item["value"] for item in quality],
            error_x={
                "type": "data", "array": [i["high"] - i["latency_ms"] for i in latency],
                "arrayminus": [i["latency_ms"] - i["low"] for i in latency], "color": "#b7c4d1",
            },
            mode="markers+lines", name="predicted:prior, composed", text=[entry["key"] for entry in entries],
        )
    )  # fmt: skip
    proven = [entry for entry in entries if device in entry["measured"]]
    figure.add_scatter(
        x=[entry["measured"][device]["latency_ms"] for entry in proven],
        y=[entry["quality"]["value"] for entry in proven],
        mode="markers", marker={"symbol": "x", "size": 11}, name="measured end to end", text=[e["key"] for e in proven],
    )  # fmt: skip
    figure.update_layout(
        title=f"Feasible front on {device}", xaxis_title="latency ms", yaxis_title="quality (predicted:prior)",
        template="plotly_white", height=430,
    )  # fmt: skip
    return figure


def loss_figure(found: dict[str, Any]) -> Any:
    """Training loss of every finalist."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for entry in found["front"]:
        if entry["trained"]:
            steps, losses = zip(*entry["trained"]["losses"], strict=True)
            figure.add_scatter(x=steps, y=losses, mode="lines", name=entry["key"])
    figure.update_layout(
        title="Training loss of the finalists (trained:short)", xaxis_title="step", yaxis_title="cross-entropy",
        template="plotly_white", height=380,
    )  # fmt: skip
    return figure
