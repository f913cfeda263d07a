"""What a space holds before a search: the spread of every known figure, and which constraints can be met."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from hardware_profiles import HardwareProfile
from nas.constraints import LATENCY_METRICS, Constraint, parse, resolve
from nas.cost import cost
from nas.errors import NotMeasuredError
from nas.latency.blocks import BlockTiming
from nas.latency.compose import compose
from nas.workload import Workload
from search_spaces import Candidate, SearchSpace

LABELS = {"params": "counted"} | dict.fromkeys(LATENCY_METRICS, "composed")
CLOSED_FORM = "closed-form"


@dataclass(frozen=True, slots=True)
class Spread:
    """Smallest, median and largest value of one figure over the candidates for which it is known."""

    low: float
    median: float
    high: float
    known: int
    label: str


@dataclass(frozen=True, slots=True)
class Reach:
    """How many of the surveyed candidates meet a constraint.

    `feasible` is None where the metric is not known, with the reason.
    """

    constraint: str
    limit: float | None
    feasible: int | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class SpaceProfile:
    """The figures of `nas spaces profile`."""

    space: str
    workload: str
    device: str | None
    size: int
    surveyed: int  # candidates that were looked at: all of them, or a fixed draw
    combinations: int  # of axis values, before the rules
    figures: dict[str, Spread]
    baseline: dict[str, float]
    constraints: list[Reach]
    feasible: int | None  # surveyed candidates that meet every constraint, None where one cannot be decided

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def profile(
    space: SearchSpace,
    workload: Workload,
    constraints: Sequence[str] | None = None,
    device: str | None = None,
    timings: Mapping[str, BlockTiming] | None = None,
) -> SpaceProfile:
    """Closed-form figures of the surveyed candidates, and composed latencies where all blocks of `timings` are there.

    `constraints` default to the space's own. Raises: ConfigError.
    """
    known = timings or {}
    rows = [_figures(candidate, workload, known) for candidate in space.survey]
    baseline = _figures(space.baseline_candidate, workload, known)
    parsed = [
        _constraint(text, workload, known) for text in (space.constraints if constraints is None else constraints)
    ]
    verdicts = [_verdicts(constraint, rows, baseline, device) for constraint in parsed]
    combinations = 1
    for values in space.axes.values():
        combinations *= len(values)
    decided = [kept for _, kept in verdicts if kept is not None]
    all_met = sum(map(all, zip(*decided, strict=True))) if decided else len(rows)
    return SpaceProfile(
        space=space.name,
        workload=workload.name,
        device=device,
        size=space.size,
        surveyed=len(rows),
        combinations=combinations,
        figures=_spreads(rows),
        baseline=baseline,
        constraints=[reach for reach, _ in verdicts],
        feasible=all_met if len(decided) == len(verdicts) else None,
    )


def stored_timings(device: HardwareProfile, space: SearchSpace, workload: Workload) -> Mapping[str, BlockTiming]:
    """What earlier sessions measured on this device, with the runtime that is installed here."""
    from nas.latency.blocks import has_blocks, needed
    from nas.latency.device import Device
    from nas.store import Store

    every = [one for one in (space.baseline_candidate, *space.survey) if has_blocks(one, workload)]
    blocks = {block.key: block for candidate in every for block in needed(candidate, workload)}
    with closing(Store.user_cache()) as store:
        return Device(device, store).known(list(blocks.values()))


def _constraint(text: str, workload: Workload, timings: Mapping[str, BlockTiming]) -> Constraint:
    """A constraint whose candidate file, if it names one, is replaced by that candidate's figure."""
    constraint = parse(text)
    return resolve(constraint, lambda candidate: _figures(candidate, workload, timings).get(constraint.metric))


def _figures(candidate: Candidate, workload: Workload, timings: Mapping[str, BlockTiming]) -> dict[str, float]:
    """What is known of one candidate; latencies are left out until all of its blocks are measured."""
    bill = cost(candidate, workload)
    figures: dict[str, float] = {
        "params": bill.params,
        "flops": bill.flops,
        "decode_flops": bill.decode_flops,
        "memory_gib": bill.memory_gib,
        "visual_tokens": bill.visual_tokens,
    }
    if timings:
        try:
            latency = compose(candidate, workload, timings)
        except NotMeasuredError:
            return figures
        figures |= {name: getattr(latency, name) for name in LATENCY_METRICS}
    return figures


def _spreads(rows: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    spreads = {}
    for name in names:
        values = [row[name] for row in rows if name in row]
        label = LABELS.get(name, CLOSED_FORM)
        spreads[name] = Spread(min(values), statistics.median(values), max(values), len(values), label)
    return spreads


def _verdicts(
    constraint: Constraint, rows: Sequence[Mapping[str, float]], baseline: Mapping[str, float], device: str | None
) -> tuple[Reach, list[bool] | None]:
    """The reach of one constraint and, where it can be decided, its verdict on every candidate."""
    metric = constraint.metric
    if constraint.device not in (None, device):
        return Reach(constraint.text, None, None, f"speaks of {constraint.device}; name it with --device"), None
    if metric == "quality":
        return Reach(constraint.text, None, None, "quality is known after a search"), None
    missing = sum(metric not in row for row in rows)
    if missing or constraint.of_file is not None or (constraint.of_baseline and metric not in baseline):
        reason = _unknown(constraint, missing, len(rows)) if device else f"{metric} needs --device"
        return Reach(constraint.text, None, None, reason), None
    reference = baseline.get(metric)
    kept = [constraint.violation(row[metric], reference) <= 0 for row in rows]
    return Reach(constraint.text, constraint.limit(reference), sum(kept)), kept


def _unknown(constraint: Constraint, missing: int, candidates: int) -> str:
    if missing:
        return f"not measured for {missing} of {candidates} candidates; `nas devices calibrate` measures"
    return f"not measured for {constraint.of_file or 'the baseline'}; `nas devices calibrate` measures"
