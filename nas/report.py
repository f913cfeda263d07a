"""The report of a run: one document, and its forms as JSON, Markdown, CSV and HTML. No number without its label."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from nas import config as configs
from nas.quality.agreement import agreement
from nas.records import Evaluation, Latency, Training
from nas.run_folder import RunFolder
from nas.store import Store


def document(folder: RunFolder) -> dict[str, Any]:
    """What `nas report RUN --json` prints."""
    from nas.search.finalists import front
    from nas.search.problem import define

    config = configs.load(folder.config_file, {}, [])
    store = Store(config.storage or folder.default_storage)
    try:
        evaluations = store.evaluations(folder.study)
        trainings = store.trainings(folder.study)
        measured = store.measurements(folder.study)
        meta = {name: store.meta(f"{name}:{folder.study}") for name in ("wall_s", "duplicates", "gated")}
    finally:
        store.close()
    problem = define(config, folder.path / "devices")
    for evaluation in evaluations:
        problem.known_latency[evaluation.key] = evaluation.latency
    best = front(problem, evaluations)
    entries = [
        _entry(evaluation, trainings.get(evaluation.key), measured.get(evaluation.key, {})) for evaluation in best
    ]
    entries.sort(key=lambda entry: entry["trained"]["accuracy_open"] if entry["trained"] else -1.0, reverse=True)
    status = [evaluation.status for evaluation in evaluations]
    return {
        "study": folder.study,
        "space": config.space,
        "devices": list(problem.profiles),
        "workload": config.workload,
        "objectives": config.objectives,
        "constraints": [constraint.text for constraint in problem.constraints],
        "counts": {
            "complete": status.count("complete"),
            "infeasible": status.count("infeasible"),
            "failed": status.count("failed"),
            "duplicates_avoided": int(meta["duplicates"] or 0),
            "gated_out": int(meta["gated"] or 0),
        },
        "front": entries,
        "baseline_check": _baseline_check(evaluations, trainings),
        "composed_against_measured": _composition_errors(best, measured),
        "failures": [{"key": e.key, "reason": e.error} for e in evaluations if e.status == "failed"],
        "wall_s": float(meta["wall_s"] or 0.0),
    }


def _entry(evaluation: Evaluation, training: Training | None, measured: dict[str, Latency]) -> dict[str, Any]:
    assert evaluation.quality is not None and evaluation.cost is not None
    return {
        "key": evaluation.key,
        "candidate": evaluation.candidate,
        "quality": evaluation.quality.to_dict(),
        "latency": {device: latency.to_dict() for device, latency in evaluation.latency.items()},
        "memory_gib": evaluation.cost.memory_gib,
        "memory_label": "closed-form estimate",
        "params": evaluation.cost.params,
        "params_label": "counted",
        "proxies": {name: score.value for name, score in evaluation.proxies.items()},
        "proxies_label": "computed on a probe batch, not trained",
        "trained": None if training is None else _trained(training),
        "measured": {device: latency.to_dict() for device, latency in measured.items()},
    }


def _trained(training: Training) -> dict[str, Any]:
    return {
        "label": training.label, "data": training.data, "accuracy_open": training.accuracy_open,
        "low": training.low, "high": training.high, "blind_open": training.blind_open,
        "above_blind": training.accuracy_open - training.blind_open, "accuracy_all": training.accuracy_all,
        "blind_all": training.blind_all, "questions": training.open_questions, "steps": training.steps,
        "samples_seen": training.samples_seen, "train_s": training.train_s, "losses": training.losses,
    }  # fmt: skip


def _baseline_check(evaluations: list[Evaluation], trainings: dict[str, Training]) -> dict[str, Any]:
    """Did the score, and did counting parameters, rank this run's trained models as training did?"""
    trained = {e.key: e for e in evaluations if e.key in trainings and e.quality and e.cost}
    truth = [trainings[key].accuracy_open for key in trained]
    by_score = agreement([e.quality.value for e in trained.values() if e.quality], truth)
    by_params = agreement([float(e.cost.params) for e in trained.values() if e.cost], truth)
    verdict = "not decidable: fewer than two trained models, or all alike"
    if by_score.kendall_tau is not None and by_params.kendall_tau is not None:
        if by_score.kendall_tau > by_params.kendall_tau:
            verdict = "the score ranked the trained models better than params"
        elif by_score.kendall_tau == by_params.kendall_tau:
            verdict = "the score ranked the trained models just as params did"
        else:
            verdict = "params ranked the trained models better than the score"
        verdict += f" (n = {by_score.n}: an indication, no proof)"
    return {"truth": "trained:short", "score": by_score.to_dict(), "params": by_params.to_dict(), "verdict": verdict}


def _composition_errors(best: list[Evaluation], measured: dict[str, dict[str, Latency]]) -> list[dict[str, Any]]:
    rows = []
    for evaluation in best:
        for device, truth in measured.get(evaluation.key, {}).items():
            composed = evaluation.latency[device]
            rows.append(
                {
                    "key": evaluation.key, "device": device, "composed_ms": composed.latency_ms,
                    "measured_ms": truth.latency_ms, "error": composed.latency_ms / truth.latency_ms - 1,
                }
            )  # fmt: skip
    return rows


def write(folder: RunFolder) -> None:
    """front.json, trials.csv, report.md, report.html and candidates/<key>.yaml of a run."""
    import yaml

    from nas.report_html import html

    found = document(folder)
    folder.write("front.json", json.dumps(found, indent=2))
    folder.write("trials.csv", trials_csv(folder))
    folder.write("report.md", markdown(found))
    folder.write("report.html", html(found))
    for entry in found["front"]:
        folder.write(f"candidates/{entry['key']}.yaml", yaml.safe_dump(entry["candidate"], sort_keys=False))


def trials_csv(folder: RunFolder) -> str:
    """Every evaluation, a row each."""
    config = configs.load(folder.config_file, {}, [])
    store = Store(config.storage or folder.default_storage)
    try:
        evaluations = store.evaluations(folder.study)
    finally:
        store.close()
    text = io.StringIO()
    rows = [_row(evaluation) for evaluation in evaluations]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(evaluation: Evaluation) -> dict[str, Any]:
    row: dict[str, Any] = {"key": evaluation.key, "status": evaluation.status, **evaluation.candidate}
    if evaluation.quality:
        row |= {"quality": evaluation.quality.value, "quality_label": evaluation.quality.label}
    for device, latency in evaluation.latency.items():
        row |= {f"latency_ms@{device}": latency.latency_ms, f"latency_label@{device}": latency.label}
    if evaluation.cost:
        row |= {"params": evaluation.cost.params, "memory_gib": evaluation.cost.memory_gib}
    row |= {f"proxy:{name}": score.value for name, score in evaluation.proxies.items()}
    return {**row, "error": evaluation.error or ""}


COLUMNS = (
    "key",
    "design",
    "quality",
    "open accuracy",
    "latency ms",
    "measured ms",
    "TTFT ms",
    "memory GiB",
    "params M",
)


def front_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """The front as text cells under COLUMNS; the first device's latencies."""
    from search_spaces import Candidate

    rows: list[tuple[str, ...]] = []
    for entry in found["front"]:
        device = found["devices"][0]
        latency, measured, trained = entry["latency"][device], entry["measured"].get(device), entry["trained"]
        rows.append(
            (
                entry["key"],
                str(Candidate.model_validate(entry["candidate"])),
                f"{_interval(entry['quality'], 'value', 3)} {entry['quality']['label']}",
                "-" if trained is None else f"{_interval(trained, 'accuracy_open', 3)} {trained['label']}",
                f"{_interval(latency, 'latency_ms', 0)} {latency['label']}",
                "-" if measured is None else _against(latency["latency_ms"], measured["latency_ms"]),
                f"{latency['ttft_ms']:.0f} {latency['label']}",
                f"{entry['memory_gib']:.2f} {entry['memory_label']}",
                f"{entry['params'] / 1e6:.1f} {entry['params_label']}",
            )
        )
    return rows


def _interval(item: dict[str, Any], value: str, digits: int) -> str:
    return f"{item[value]:.{digits}f} [{item['low']:.{digits}f}, {item['high']:.{digits}f}]"


def _against(composed_ms: float, measured_ms: float) -> str:
    return f"{measured_ms:.0f} (composed {composed_ms / measured_ms - 1:+.1%})"


def summary(found: dict[str, Any]) -> list[str]:
    """The verdicts, a sentence each."""
    counts, check = found["counts"], found["baseline_check"]
    lines = [
        f"{counts['complete']} candidates evaluated, {counts['infeasible']} drawn but infeasible, "
        f"{counts['failed']} failed, {counts['duplicates_avoided']} duplicates avoided; {found['wall_s']:.0f} s.",
        f"Score against training: {check['verdict']}.",
    ]
    errors = [abs(row["error"]) for row in found["composed_against_measured"]]
    if errors:
        lines.append(
            f"Composed against measured latency of the finalists: mean error {sum(errors) / len(errors):.1%}, "
            f"max {max(errors):.1%}."
        )
    return lines


def markdown(found: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [f"# {found['study']}", "", *(f"- {line}" for line in summary(found)), ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row) + " |" for row in front_rows(found)]
    return "\n".join(lines) + "\n"
