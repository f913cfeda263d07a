"""What a space holds before a search: the spread of every known figure, and which constraints can be met."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardware_profiles import HardwareProfile
from nas.constraints import LATENCY_METRICS, Constraint, parse, resolve
from nas.cost_many import cost_of_candidates, cost_of_codes
from nas.errors import NotMeasuredError
from nas.latency.blocks import BlockTiming
from nas.latency.compose import compose
from nas.latency.estimate import estimate, known_calibration
from nas.records import Latency
from nas.workload import Workload
from search_spaces import Candidate, SearchSpace

Column = NDArray[np.float64]  # a figure of every surveyed candidate, NaN where it is not known
LatencyOf = Callable[[Candidate], Latency | None]
CLOSED_FORMS = ("params", "flops", "decode_flops", "memory_gib", "visual_tokens")
COUNTED, CLOSED_FORM = "counted", "closed-form"
MOST_ESTIMATED = 2_000  # candidates of a draw that are estimated; one takes a millisecond


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
    latency_of: LatencyOf = lambda candidate: None,
    most: int | None = None,
) -> SpaceProfile:
    """Closed-form figures of the surveyed candidates, at `most` so many of them, and latencies where they are known.

    `constraints` default to the space's own. Raises: ConfigError.
    """
    step = 1 if most is None else math.ceil(len(space.survey) / most)
    figures, labels = _columns(space, workload, latency_of, step)
    baseline = _figures(space.baseline_candidate, workload, latency_of)
    parsed = [
        _constraint(text, workload, latency_of) for text in (space.constraints if constraints is None else constraints)
    ]
    verdicts = [_verdicts(constraint, figures, baseline, device) for constraint in parsed]
    surveyed = len(figures["params"])
    decided = [kept for _, kept in verdicts if kept is not None]
    all_met = int(np.logical_and.reduce(decided).sum()) if decided else surveyed
    return SpaceProfile(
        space=space.name,
        workload=workload.name,
        device=device,
        size=space.size,
        surveyed=surveyed,
        combinations=math.prod(map(len, space.axes.values())),
        figures={name: _spread(column, labels[name]) for name, column in figures.items()},
        baseline=baseline,
        constraints=[reach for reach, _ in verdicts],
        feasible=all_met if len(decided) == len(verdicts) else None,
    )


def composed_of(timings: Mapping[str, BlockTiming], workload: Workload) -> LatencyOf:
    """Composed latencies of candidates whose blocks are all in `timings`."""

    def latency(candidate: Candidate) -> Latency | None:
        try:
            return compose(candidate, workload, timings)
        except NotMeasuredError:
            return None

    return latency


def estimated_on(device: HardwareProfile, workload: Workload) -> LatencyOf:
    """Estimates for a device that is not at hand."""
    model = known_calibration(device.id)
    return lambda candidate: estimate(candidate, workload, device, model)


def stored_timings(device: HardwareProfile, space: SearchSpace, workload: Workload) -> Mapping[str, BlockTiming]:
    """What earlier sessions measured on this device, with the runtime that is installed here."""
    from nas.latency.device import Device
    from nas.latency.terms import has_blocks, needed
    from nas.store import Store

    every = [one for one in (space.baseline_candidate, *space.survey) if has_blocks(one, workload)]
    blocks = {block.key: block for candidate in every for block in needed(candidate, workload)}
    with closing(Store.user_cache()) as store:
        return Device(device, store).known(list(blocks.values()))


def _constraint(text: str, workload: Workload, latency_of: LatencyOf) -> Constraint:
    """A constraint whose candidate file, if it names one, is replaced by that candidate's figure."""
    constraint = parse(text)
    return resolve(constraint, lambda candidate: _figures(candidate, workload, latency_of).get(constraint.metric))


def _figures(candidate: Candidate, workload: Workload, latency_of: LatencyOf) -> dict[str, float]:
    """What is known of one candidate."""
    costs = cost_of_candidates([candidate], workload)
    figures: dict[str, float] = {name: getattr(costs, name)[0].item() for name in CLOSED_FORMS}
    latency = latency_of(candidate)
    return figures | ({} if latency is None else {name: getattr(latency, name) for name in LATENCY_METRICS})


def _columns(
    space: SearchSpace, workload: Workload, latency_of: LatencyOf, step: int
) -> tuple[dict[str, Column], dict[str, str]]:
    """Every figure that is known of some surveyed candidate, of every `step`th one, and its label."""
    costs = cost_of_codes(space, space.survey_codes[::step], workload)
    figures: dict[str, Column] = {name: getattr(costs, name).astype(np.float64) for name in CLOSED_FORMS}
    labels = {name: COUNTED if name == "params" else CLOSED_FORM for name in CLOSED_FORMS}
    rows = [latency_of(candidate) for candidate in space.survey[::step]]
    known = [row for row in rows if row is not None]
    if known:
        columns = {name: [np.nan if row is None else getattr(row, name) for row in rows] for name in LATENCY_METRICS}
        figures |= {name: np.array(column) for name, column in columns.items()}
        labels |= dict.fromkeys(LATENCY_METRICS, known[0].label)
    return figures, labels


def _spread(column: Column, label: str) -> Spread:
    values = column[~np.isnan(column)]
    return Spread(float(values.min()), float(np.median(values)), float(values.max()), len(values), label)


def _verdicts(
    constraint: Constraint, figures: Mapping[str, Column], baseline: Mapping[str, float], device: str | None
) -> tuple[Reach, NDArray[np.bool_] | None]:
    """The reach of one constraint and, where it can be decided, its verdict on every candidate."""
    metric = constraint.metric
    if constraint.device not in (None, device):
        return Reach(constraint.text, None, None, f"speaks of {constraint.device}; name it with --device"), None
    if metric == "quality":
        return Reach(constraint.text, None, None, "quality is known after a search"), None
    surveyed = len(figures["params"])
    column = figures.get(metric, np.full(surveyed, np.nan))
    missing = int(np.isnan(column).sum())
    if missing or constraint.of_file is not None or (constraint.of_baseline and metric not in baseline):
        reason = _unknown(constraint, missing, surveyed) if device else f"{metric} needs --device"
        return Reach(constraint.text, None, None, reason), None
    reference = baseline.get(metric)
    kept = np.array([constraint.violation(value, reference) <= 0 for value in column.tolist()])
    return Reach(constraint.text, constraint.limit(reference), int(kept.sum())), kept


def _unknown(constraint: Constraint, missing: int, candidates: int) -> str:
    if missing:
        return f"not measured for {missing} of {candidates} candidates; `nas devices calibrate` measures"
    return f"not measured for {constraint.of_file or 'the baseline'}; `nas devices calibrate` measures"
