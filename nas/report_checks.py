"""What a run says of its own numbers: composed against measured, and the verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.records import Evaluation, Latency
from nas.report_limits import missed_wishes, over_limit

BUSY = 1.5  # a composed interval that reaches this far beyond its value was measured on a busy machine


def composition_errors(
    evaluations: Sequence[Evaluation], measured: Mapping[str, Mapping[str, Latency]]
) -> list[dict[str, Any]]:
    """Composed against measured latency of every measured candidate; error = composed / measured - 1."""
    rows = []
    for evaluation in evaluations:
        for device, truth in measured.get(evaluation.key, {}).items():
            composed = evaluation.latency[device]
            rows.append(
                {
                    "key": evaluation.key,
                    "device": device,
                    "composed_ms": composed.latency_ms,
                    "measured_ms": truth.latency_ms,
                    "error": composed.latency_ms / truth.latency_ms - 1,
                    "inside_interval": composed.low_ms <= truth.latency_ms <= composed.high_ms,
                }
            )
    return rows


def label_warning(entries: Sequence[dict[str, Any]]) -> str | None:
    """A sentence when the front holds numbers that were obtained in different ways, else None."""
    warnings = []
    for what, labels in (
        ("quality", {entry["quality"]["label"] for entry in entries}),
        ("latency", {latency["label"] for entry in entries for latency in entry["latency"].values()}),
    ):
        if len(labels) > 1:
            warnings.append(f"{what} on this front mixes {' and '.join(sorted(labels))}")
    trained = sum(entry["trained"] is not None for entry in entries)
    if 0 < trained < len(entries):
        warnings.append(
            f"ranks 1 to {trained} are by trained accuracy; the rest was not trained and follows by predicted quality"
        )
    return "; ".join(warnings) or None


def verdict(found: dict[str, Any]) -> list[str]:
    """The findings, a sentence each, most important first."""
    finalists = sorted(
        (entry for entry in [*found["front"], *found["off_front"]] if entry["trained"]),
        key=lambda entry: entry["trained"]["accuracy_open"],
        reverse=True,
    )
    lines = _best(found, finalists) if finalists else _untrained(found)
    if finalists:
        again = f"nas train candidates/{finalists[0]['key']}.yaml --steps {finalists[0]['trained']['steps']} --seed N"
        lines.append(f"Prediction against training: {found['baseline_check']['verdict']}.")
        lines.append(
            "Intervals of accuracy: of the questions held out, after one training; by another seed a short one may end "
            f"elsewhere ({again})."
        )
    errors = found["composed_against_measured"]
    if errors:
        sizes = [abs(row["error"]) for row in errors]
        inside = sum(row["inside_interval"] for row in errors)
        lines.append(
            f"Composed against measured latency: mean error {sum(sizes) / len(sizes):.1%}, max {max(sizes):.1%}; "
            f"{inside} of {len(errors)} measured values lie inside the composed interval."
        )
    lines += over_limit(found, finalists)
    lines += [*_front_words(found), *missed_wishes(found)]
    latencies = [item for entry in found["front"] for item in entry["latency"].values()]
    reach = [item["high"] / item["latency_ms"] for item in latencies if item["label"] == "composed"]
    if max(reach, default=0.0) > BUSY:
        lines.append(
            f"Latency is uncertain: its interval reaches up to {max(reach):.1f}x the value on this front, so the "
            "device was busy while it was measured, or most blocks of the space are fitted to others; measure again "
            "when nothing else runs, or longer (--set measuring_s=3600)."
        )
    if found["label_warning"]:
        lines.append(f"Note: {found['label_warning']}.")
    return lines


def _front_words(found: dict[str, Any]) -> list[str]:
    """Whether the front was solved exactly, and how sure it is."""
    lines, entries = [], found["front"]
    for rung in found["rungs"]:
        lines.append(
            f"Rung of {rung['steps']} steps: {len(rung['accuracy_open'])} candidates trained in "
            f"{rung['train_s']:.0f} s, {len(rung['kept'])} went on."
        )
    solved = found["exact"]
    if solved:
        keys = set(solved["front"])
        done = sum(entry["key"] in keys for entry in entries)
        what = "Solved exactly" if solved["exact"] else "Solved over a sample"
        lines.append(
            f"{what}: of {solved['weighed']:,} candidates, all weighed by predicted quality and latency, "
            f"{len(keys)} are on the front, {done} of them among the designs listed."
        )
    if entries:
        verdicts = [entry["confidence"]["verdict"] for entry in entries]
        counts = "; ".join(f"{verdicts.count(one)} {one}" for one in dict.fromkeys(verdicts))
        lines.append(
            f"Given the intervals of quality and latency, among the {entries[0]['confidence']['among']:,} designs that "
            f"were weighed or evaluated, of the {len(entries)} listed: {counts}."
        )
    return lines


def _untrained(found: dict[str, Any]) -> list[str]:
    if not found["front"]:
        if found["nothing_feasible"]:
            return [f"The search ended: {found['nothing_feasible']}."]
        return ["No feasible candidate has been evaluated yet."]
    entry = found["front"][0]
    return [
        f"Nothing is trained yet: the front is a prediction. Highest predicted quality: {design(entry)} "
        f"({entry['key']}), {interval(entry['quality'], 'value')} {entry['quality']['label']}, "
        f"{latency_text(found, entry)}."
    ]


def _best(found: dict[str, Any], finalists: list[dict[str, Any]]) -> list[str]:
    best = finalists[0]
    trained, blind = best["trained"], best["trained"]["blind_open"]
    lines = [
        f"Best trained: {design(best)} ({best['key']}): accuracy on open questions "
        f"{interval(trained, 'accuracy_open')} {trained['label']}, blind baseline {number(blind)} (majority answer); "
        f"{latency_text(found, best)}; {number(best['params'] / 1e6)} M params {best['params_label']}."
    ]
    if trained["low"] <= blind:
        return [
            *lines,
            f"No finalist is above the blind baseline beyond its 95 % interval after {trained['steps']} steps: "
            "the order by trained accuracy is noise; train longer (--train-steps), and on more data if it is your own.",
        ]
    device = found["devices"][0]
    rivals = [e for e in finalists[1:] if e["trained"]["high"] >= trained["low"] and _ms(e, device) < _ms(best, device)]
    if rivals:
        rival = min(rivals, key=lambda entry: _ms(entry, device))
        lines.append(
            f"Not told apart from it by accuracy (the 95 % intervals overlap), and "
            f"{_ms(best, device) / _ms(rival, device):.1f}x faster: {design(rival)} ({rival['key']}), "
            f"{interval(rival['trained'], 'accuracy_open')} {rival['trained']['label']}, "
            f"{latency_text(found, rival)}."
        )
    return lines


def _ms(entry: dict[str, Any], device: str) -> float:
    return float((entry["measured"].get(device) or entry["latency"][device])["latency_ms"])


def latency_text(found: dict[str, Any], entry: dict[str, Any]) -> str:
    """The best known latency of the whole answer on the first device, with interval and label."""
    device = found["devices"][0]
    latency = entry["measured"].get(device) or entry["latency"][device]
    return f"{interval(latency, 'latency_ms')} ms {latency['label']} on {device}"


def interval(item: dict[str, Any], value: str) -> str:
    """`0.910 [0.880, 0.930]`."""
    return f"{number(item[value])} [{number(item['low'])}, {number(item['high'])}]"


def number(value: float) -> str:
    """Three significant digits, without an exponent where people would write none."""
    size = abs(value)
    for least, form in ((100, ".0f"), (10, ".1f"), (1, ".2f"), (0.01, ".3f"), (0.001, ".4f")):
        if size >= least:
            return format(value, form)
    return "0" if not value else f"{value:.1e}"


def design(entry: dict[str, Any]) -> str:
    """The candidate of an entry or trial row in one line."""
    from search_spaces import Candidate

    return str(Candidate.model_validate(entry["candidate"]))
