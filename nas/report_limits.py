"""The constraints in a report: each bound in its metric's unit with its label, and which designs miss one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.constraints import LATENCY_METRICS, value_of
from nas.records import Evaluation, Latency, Quality

if TYPE_CHECKING:
    from nas.search.problem import Problem

MEMORY_LABEL, PARAMS_LABEL = "closed-form", "counted"
UNITS = {**dict.fromkeys(LATENCY_METRICS, "ms"), "memory_gib": "GiB", "params": "params", "quality": ""}


def limits(problem: Problem, evaluations: Sequence[Evaluation]) -> dict[str, float | None]:
    """The bound of each constraint in its metric's unit; None before anything was evaluated.

    A stored violation is value - bound (bound - value for a lower bound), so the bound that the run used comes back.
    """
    known = next((e for e in evaluations if e.violations), None)
    if known is None:
        return {constraint.text: None for constraint in problem.constraints}
    metrics = _metrics(known)
    found: dict[str, float | None] = {}
    for constraint in problem.constraints:
        excess = known.violations.get(constraint.text)
        value = value_of(metrics, constraint, problem.devices[0])
        found[constraint.text] = None if excess is None else value - excess if constraint.upper else value + excess
    return found


def _metrics(evaluation: Evaluation) -> dict[str, float]:
    """As they were stored: a score that was fitted since says otherwise of quality."""
    quality, cost = evaluation.quality, evaluation.cost
    assert quality is not None and cost is not None  # of what has violations
    found = {"quality": quality.value, "memory_gib": cost.memory_gib, "params": float(cost.params)}
    for device, latency in evaluation.latency.items():
        found |= {f"{name}@{device}": getattr(latency, name) for name in LATENCY_METRICS}
    return found


def limit_labels(problem: Problem, quality: Quality, latency: Mapping[str, Latency]) -> dict[str, str]:
    """How the bound of each relative constraint was obtained: as the figures of any design are, such as these."""
    labels = {"quality": quality.label, "memory_gib": MEMORY_LABEL, "params": PARAMS_LABEL}
    return {
        one.text: latency[one.device or problem.devices[0]].label
        if one.metric in LATENCY_METRICS
        else labels[one.metric]
        for one in problem.constraints
        if "%" in one.text
    }


def limit_text(found: dict[str, Any], constraint: str) -> str:
    """A constraint, with its bound in the metric's unit where it was relative."""
    bound, label = found["limits"].get(constraint), found["limit_labels"].get(constraint)
    if bound is None or label is None:
        return constraint
    return f"{constraint} (= {amount(constraint.split()[0].partition('@')[0], bound)} {label})"


def amount(metric: str, value: float) -> str:
    """`23.96 ms`; quality has no unit."""
    figure = f"{value:,.0f}" if metric == "params" else f"{value:.4g}"
    return f"{figure} {UNITS[metric]}".rstrip()


def missed_wishes(found: dict[str, Any]) -> list[str]:
    """A sentence for each soft constraint that designs of the front miss."""
    lines, entries = [], found["front"]
    for wish in dict.fromkeys(text for entry in entries for text in entry["wishes_missed"]):
        missed = sum(wish in entry["wishes_missed"] for entry in entries)
        lines.append(f"Wish missed by {missed} of {len(entries)} designs of the front: {limit_text(found, wish)}.")
    return lines


def over_limit(found: dict[str, Any], finalists: Sequence[dict[str, Any]]) -> list[str]:
    """Finalists that met a latency limit composed and miss it measured."""
    lines = []
    for text, bound in found["limits"].items():
        metric, sign = text.split()[:2]
        name, _, device = metric.partition("@")
        for entry in finalists:
            measured = entry["measured"].get(device or found["devices"][0], {}).get(name)
            if measured is not None and bound is not None and sign == "<=" and measured > bound:
                lines.append(
                    f"Over the limit when measured: {entry['key']} has {name} {measured:.0f} measured, and the "
                    f"constraint {text!r} allows {bound:.0f}; composed it was within."
                )
    return lines
