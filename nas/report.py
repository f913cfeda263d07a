"""The report of a run: one document that `nas report --json` prints, and the files made from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nas import config as configs
from nas import report_checks as checks
from nas import report_devices
from nas import report_ranking as ranking
from nas.constraints import LATENCY_METRICS
from nas.records import Evaluation, Latency, Quality, Training
from nas.report_limits import MEMORY_LABEL, PARAMS_LABEL, limit_labels, limits
from nas.report_records import profiles, records
from nas.run_folder import ENV, RunFolder

if TYPE_CHECKING:
    from nas.config import SearchConfig
    from nas.quality.anchored import Anchored
    from nas.search.problem import Problem

# What a run notes of itself.
KEPT = ("wall_s", "duplicates", "gated", "unmeasured", "exact", "to_beat", "rungs", "nothing_feasible")
PROXIES_LABEL = "probe batch, untrained"


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that a run has stored, read once."""

    study: str
    config: SearchConfig
    problem: Problem
    evaluations: list[Evaluation]
    trainings: dict[str, Training]  # by candidate key
    measured: dict[str, dict[str, Latency]]  # by candidate key, then device
    meta: dict[str, str | None]
    environment: dict[str, Any]
    anchored: Anchored | None = None  # fitted on all that is trained by now

    def quality(self, evaluation: Evaluation) -> Quality | None:
        """As it was told to the sampler, or by the newest fit."""
        return self.problem.anchored.get(evaluation.key, evaluation.quality)


def read(folder: RunFolder) -> Run:
    """A run as it is now, also while it is searching. Raises: UserError."""
    from nas.search.anchors import use_anchors
    from nas.search.problem import define

    config = configs.load(folder.config_file, {}, [])
    store = records(folder, config.storage)
    try:
        evaluations = store.evaluations(folder.study)
        trainings = store.trainings(folder.study)
        measured = store.measurements(folder.study)
        meta = {name: store.meta(f"{name}:{folder.study}") for name in KEPT}
    finally:
        store.close()
    problem = define(config, profiles(folder, evaluations))
    anchored = use_anchors(problem, trainings) if config.anchors else None
    for evaluation in evaluations:
        problem.known_latency[evaluation.key] = evaluation.latency
        if evaluation.quality is not None:
            problem.known_quality[evaluation.key] = evaluation.quality
    file = folder.path / ENV
    environment = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    environment.pop("installed", None)  # long, and in the file
    return Run(folder.study, config, problem, evaluations, trainings, measured, meta, environment, anchored)


def document(folder: RunFolder) -> dict[str, Any]:
    """What `nas report RUN --json` prints. No number in it lacks its label."""
    return describe(read(folder))


def describe(run: Run) -> dict[str, Any]:
    """The document of a run. The front is ranked by trained accuracy; what was not trained follows by prediction."""
    from nas.search.front import front

    best = front(run.problem, run.evaluations)
    sure = _confidence(run)
    on_front = {evaluation.key for evaluation in best}
    proven = [e for e in run.evaluations if e.key in run.trainings and e.key not in on_front and e.quality]
    entries = _ranked([_entry(run, evaluation) | {"confidence": sure[evaluation.key]} for evaluation in best])
    off_front = _ranked([_entry(run, evaluation) for evaluation in proven])
    config, problem = run.config, run.problem
    left_out = {}
    if run.anchored is not None:
        keys = [candidate.key for candidate in run.anchored.anchors]
        left_out = dict(zip(keys, run.anchored.left_out(), strict=True))
    found: dict[str, Any] = {
        "study": run.study,
        "space": problem.space.name,
        "devices": problem.devices,
        "workload": problem.workload.name,
        "request": problem.workload.model_dump(exclude={"name", "description"}),
        "objectives": problem.objectives,
        "constraints": [constraint.text for constraint in problem.constraints],
        "limits": limits(problem, run.evaluations),
        "limit_labels": _limit_labels(run),
        "search": {
            "space_size": problem.space.size, "sampler": config.sampler, "seed": config.seed,
            "workers": config.workers, "trials": config.trials, "anchors": config.anchors,
            "finalists": config.finalists,
            "train_steps": config.train_steps, "data": config.data,
        },
        "counts": _counts(run),
        "front": entries,
        "off_front": off_front,  # trained when they were on the front, dominated since
        "baseline_check": ranking.baseline_check(run.evaluations, run.trainings, left_out),
        "nothing_feasible": run.meta["nothing_feasible"],
        "exact": json.loads(run.meta["exact"] or "null"),
        "rungs": json.loads(run.meta["rungs"] or "[]"),
        "score_fit": None if run.anchored is None else run.anchored.to_dict(),
        "proxy_check": ranking.proxy_check(run.evaluations, run.trainings),
        "composed_against_measured": checks.composition_errors(run.evaluations, run.measured),
        "label_warning": checks.label_warning(entries),
        "devices_compared": report_devices.compare(run.evaluations, problem.devices),
        "failures": _failures(run),
        "proxy_failures": _proxy_failures(run),
        "environment": run.environment,
        "wall_s": float(run.meta["wall_s"] or 0.0),
    }  # fmt: skip
    found["verdict"] = checks.verdict(found)
    if found["devices_compared"] is not None:
        found["verdict"] += report_devices.in_words(found["devices_compared"])
    return found


def _limit_labels(run: Run) -> dict[str, str]:
    known = next((e for e in run.evaluations if e.violations), None)
    return {} if known is None or known.quality is None else limit_labels(run.problem, known.quality, known.latency)


def _confidence(run: Run) -> dict[str, dict[str, Any]]:
    """By key: how often a candidate is on the front, when all are drawn from their intervals.

    Of what was evaluated and of the front of what was weighed, for a design that nobody built may beat it.
    """
    from nas.search.confidence import confidence, errors, in_logs, in_words
    from search_spaces import Candidate

    problem = run.problem
    complete = [e for e in run.evaluations if e.status == "complete" and e.quality]
    if not complete:
        return {}
    metrics = (problem.metrics(Candidate.model_validate(e.candidate)) for e in complete)
    gains = in_logs(problem.objectives, [problem.maximised(each) for each in metrics]).tolist()
    doubts = [errors(problem.objectives, quality, e.latency) for e in complete if (quality := run.quality(e))]
    keys, to_beat = {one.key for one in complete}, json.loads(run.meta["to_beat"] or '{"keys": []}')
    columns = _as_searched(run.config.objectives, problem.objectives, list(complete[0].latency))
    for place, key in enumerate(to_beat["keys"]):
        if key not in keys:
            gains.append([to_beat["gains"][place][column] for column in columns])
            doubts.append([to_beat["errors"][place][column] for column in columns])
    shares = confidence(np.array(gains), np.array(doubts))
    among = max(len(shares), to_beat.get("among", 0))
    return {
        one.key: {"share": float(share), "among": among, "verdict": in_words(float(share))}
        for one, share in zip(complete, shares[: len(complete)], strict=True)
    }


def _as_searched(asked: Sequence[str], objectives: Sequence[str], devices: Sequence[str]) -> list[int]:
    """Where each of the objectives stood when the run was searched, on its devices in the order they were given in."""
    searched: list[str] = []
    for name in asked:
        on_each = name in LATENCY_METRICS and len(devices) > 1
        searched += [f"{name}@{device}" for device in devices] if on_each else [name]
    return [searched.index(name) for name in objectives]


def _counts(run: Run) -> dict[str, int]:
    status = [evaluation.status for evaluation in run.evaluations]
    return {
        "complete": status.count("complete"),
        "infeasible": status.count("infeasible"),
        "failed": status.count("failed"),
        "duplicates_avoided": int(run.meta["duplicates"] or 0),
        "gated_out": int(run.meta["gated"] or 0),
        "unmeasured": int(run.meta["unmeasured"] or 0),  # see nas.records.NO_LATENCY
        "trained": len(run.trainings),
    }


def _failures(run: Run) -> list[dict[str, Any]]:
    failed = (evaluation for evaluation in run.evaluations if evaluation.status == "failed")
    return [{"key": each.key, "reason": each.error, "traceback": each.traceback} for each in failed]


def _proxy_failures(run: Run) -> list[dict[str, Any]]:
    """Proxies that gave no value while their candidate did not fail, by reason, with the first trace of each."""
    found: dict[tuple[str, str | None], dict[str, Any]] = {}
    for evaluation in run.evaluations:
        for name, score in evaluation.proxies.items():
            if score.value is None and evaluation.status != "failed":
                first = {"proxy": name, "reason": score.reason, "count": 0, "traceback": score.traceback}
                found.setdefault((name, score.reason), first)["count"] += 1
    return list(found.values())


def _ranked(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def merit(entry: dict[str, Any]) -> tuple[float, float]:
        trained = entry["trained"]
        return (-1.0 if trained is None else trained["accuracy_open"], entry["quality"]["value"])

    ordered = sorted(entries, key=merit, reverse=True)
    return [
        {"rank": rank, "ranked_by": (entry["trained"] or entry["quality"])["label"], **entry}
        for rank, entry in enumerate(ordered, 1)
    ]


def _entry(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    quality = run.quality(evaluation)
    assert quality is not None and evaluation.cost is not None
    training = run.trainings.get(evaluation.key)
    measured = run.measured.get(evaluation.key, {})
    return {
        "key": evaluation.key,
        "candidate": evaluation.candidate,
        "quality": quality.to_dict(),
        "latency": {device: latency.to_dict() for device, latency in evaluation.latency.items()},
        "memory_gib": evaluation.cost.memory_gib,
        "memory_label": MEMORY_LABEL,
        "params": evaluation.cost.params,
        "params_label": PARAMS_LABEL,
        "visual_tokens": evaluation.cost.visual_tokens,
        "visual_tokens_label": PARAMS_LABEL,
        "wishes_missed": [
            one.text for one in run.problem.constraints if one.soft and evaluation.violations.get(one.text, 0.0) > 0
        ],
        "proxies": {name: score.value for name, score in evaluation.proxies.items()},
        "proxies_label": PROXIES_LABEL,
        "proxy_errors": {name: score.reason for name, score in evaluation.proxies.items() if score.value is None},
        "trained": None if training is None else _trained(training),
        "measured": {device: latency.to_dict() for device, latency in measured.items()},
    }


def _trained(training: Training) -> dict[str, Any]:
    shown = asdict(training)
    del shown["key"], shown["checkpoint"]
    shown["questions"] = shown.pop("open_questions")
    return {**shown, "above_blind": training.accuracy_open - training.blind_open}


def trial_rows(run: Run) -> list[dict[str, Any]]:
    """Every evaluation in its order, a flat row each; labels stand beside the numbers."""
    return [_row(run, number, evaluation) for number, evaluation in enumerate(run.evaluations, 1)]


def _row(run: Run, number: int, evaluation: Evaluation) -> dict[str, Any]:
    row: dict[str, Any] = {"trial": number, "key": evaluation.key, "status": evaluation.status, **evaluation.candidate}
    if quality := run.quality(evaluation):
        row |= {"quality": quality.value, "quality_low": quality.low, "quality_high": quality.high}
        row |= {"quality_label": quality.label}
    for device, latency in evaluation.latency.items():
        row |= {f"{name}@{device}": getattr(latency, name) for name in LATENCY_METRICS}
        row |= {f"latency_low_ms@{device}": latency.low_ms, f"latency_high_ms@{device}": latency.high_ms}
        row |= {f"latency_label@{device}": latency.label}
    if cost := evaluation.cost:
        row |= {"params": cost.params, "params_label": PARAMS_LABEL, "visual_tokens": cost.visual_tokens}
        row |= {"memory_gib": cost.memory_gib, "memory_label": MEMORY_LABEL}
    row |= {f"proxy:{name}": score.value for name, score in evaluation.proxies.items()}
    if training := run.trainings.get(evaluation.key):
        row |= {"accuracy_open": training.accuracy_open, "blind_open": training.blind_open}
        row |= {"accuracy_label": training.label}
    for device, latency in run.measured.get(evaluation.key, {}).items():
        row |= {f"measured_latency_ms@{device}": latency.latency_ms}
    violated = "; ".join(text for text, excess in evaluation.violations.items() if excess > 0)
    return {**row, "violated": violated, "wall_s": evaluation.wall_s, "error": evaluation.error or ""}


def write(folder: RunFolder) -> None:
    """front.json, trials.csv, report.md, report.html and candidates/<key>.yaml of a run."""
    import yaml

    from nas.report_html import html
    from nas.report_text import as_csv, markdown

    run = read(folder)
    found, rows = describe(run), trial_rows(run)
    folder.write("front.json", json.dumps(found, indent=2))
    folder.write("trials.csv", as_csv(rows))
    folder.write("report.md", markdown(found))
    folder.write("report.html", html(found, rows))
    for entry in [*found["front"], *found["off_front"]]:
        folder.write(f"candidates/{entry['key']}.yaml", yaml.safe_dump(entry["candidate"], sort_keys=False))
