"""Several devices side by side: the front of each, and whether they rank designs alike."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from nas import pareto
from nas.quality.agreement import agreement
from nas.records import Evaluation


def compare(evaluations: Sequence[Evaluation], devices: Sequence[str]) -> dict[str, Any] | None:
    """Keys on the front of quality against latency by device, and Kendall's tau of latencies; None for one device."""
    if len(devices) < 2:
        return None
    known = [e for e in evaluations if e.status == "complete" and e.quality and set(devices) <= e.latency.keys()]
    fronts = {}
    for device in devices:
        points = [[e.quality.value, -e.latency[device].latency_ms] for e in known if e.quality]
        fronts[device] = [known[index].key for index in pareto.front(points)]
    pairs = []
    for first, second in combinations(devices, 2):
        columns = [[e.latency[device].latency_ms for e in known] for device in (first, second)]
        shared = set(fronts[first]) & set(fronts[second])
        pairs.append(
            {
                "devices": [first, second],
                "kendall_tau": agreement(columns[0], columns[1]).kendall_tau,
                "on_both_fronts": len(shared),
                "labels": sorted({e.latency[device].label for e in known for device in (first, second)}),
            }
        )
    return {"designs": len(known), "fronts": fronts, "pairs": pairs}


def in_words(found: dict[str, Any]) -> list[str]:
    """A line a device and a line a pair."""
    lines = [f"front of {device}: {', '.join(keys) or 'empty'}" for device, keys in found["fronts"].items()]
    for pair in found["pairs"]:
        first, second = pair["devices"]
        tau = "not defined" if pair["kendall_tau"] is None else f"{pair['kendall_tau']:.2f}"
        labels = ", ".join(pair["labels"])
        lines.append(
            f"{first} and {second} rank {found['designs']} designs with Kendall's tau {tau} ({labels}); "
            f"{pair['on_both_fronts']} designs are on both fronts"
        )
    return lines
