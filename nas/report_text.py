"""The report as text: the front as a table of cells, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nas.durations import duration
from nas.records import NO_LATENCY
from nas.report_checks import design, interval, number
from nas.report_limits import limit_text, missed_wishes

Entry = dict[str, Any]
Cell = tuple[str, str]  # text and label; an empty label for what is no number
Column = tuple[str, Callable[[Entry], Cell]]  # title, and the cell of an entry

NAMES: list[Column] = [("key", lambda e: (e["key"], "")), ("design", lambda e: (design(e), ""))]
QUALITY: Column = ("quality", lambda e: (interval(e["quality"], "value"), e["quality"]["label"]))
SURE_AND_SIZED: list[Column] = [
    ("on the front", lambda e: (f"{e['confidence']['share']:.0%}", f"of draws among {e['confidence']['among']:,}")),
    ("GiB", lambda e: (number(e["memory_gib"]), e["memory_label"])),
    ("params M", lambda e: (number(e["params"] / 1e6), e["params_label"])),
]


@dataclass(frozen=True, slots=True)
class Table:
    """Text cells under titled columns. A label that all cells of a column share stands in its heading."""

    titles: tuple[str, ...]
    labels: tuple[str, ...]
    rows: list[tuple[str, ...]]

    @property
    def headings(self) -> list[str]:
        """Title and, below it, the label."""
        return ["\n".join(part for part in pair if part) for pair in zip(self.titles, self.labels, strict=True)]


def table(columns: Sequence[Column], entries: Sequence[Entry]) -> Table:
    """Lifts labels into the headings where a whole column shares one; otherwise they stay in the cells."""
    labels, cells = [], []
    for _, cell_of in columns:
        found = [cell_of(entry) for entry in entries]
        shared = {label for _, label in found if label}
        alike = len(shared) == 1
        labels.append(shared.pop() if alike else "")
        cells.append([text if alike or not label else f"{text} {label}" for text, label in found])
    rows = list(zip(*cells, strict=True)) if entries else []
    return Table(tuple(title for title, _ in columns), tuple(labels), rows)


def front_table(found: dict[str, Any]) -> Table:
    """The front, best first: trained and measured columns where there is anything in them."""
    entries, devices = found["front"], found["devices"]
    columns: list[Column] = [("#", lambda e: (str(e["rank"]), "")), *NAMES]
    if any(entry["trained"] for entry in entries):
        columns.append(("open accuracy", _accuracy))
    columns.append(QUALITY)
    for device in devices:
        at = f" @{device}" if len(devices) > 1 else ""
        columns.append((f"latency ms{at}", _latency("latency", device, "latency_ms")))
        if any(device in entry["measured"] for entry in entries):
            columns.append((f"latency ms{at}", _latency("measured", device, "latency_ms")))
        columns.append((f"TTFT ms{at}", _latency("latency", device, "ttft_ms")))
        columns.append((f"ms/token{at}", _latency("latency", device, "tpot_ms")))
    return table([*columns, *SURE_AND_SIZED], entries)


def solved_table(found: dict[str, Any]) -> Table:
    """The front of a run that was solved again (nas.search.resolve), best predicted first."""
    latencies = [(f"latency ms @{device}", _latency("latency", device, "latency_ms")) for device in found["devices"]]
    evaluated: Column = ("evaluated", lambda e: ("yes" if e["evaluated"] else "no", ""))
    return table([*NAMES, QUALITY, *latencies, *SURE_AND_SIZED, evaluated], found["front"])


def solved_words(found: dict[str, Any]) -> list[str]:
    """What the front under other constraints was taken from, and which wishes it misses."""
    allowed = "" if found["feasible"] is None else f", {found['feasible']:,} are allowed"
    return [
        f"Constraints: {'; '.join(limit_text(found, text) for text in found['constraints'])}.",
        f"{found['weighed']:,} of {found['candidates']:,} candidates were looked at{allowed}; the front is "
        f"{'exact' if found['exact'] else 'not exact'}: {found['how']}. Nothing was evaluated anew.",
        *missed_wishes(found),
    ]


def finalists_table(found: dict[str, Any]) -> Table:
    """The trained candidates: predicted beside trained, composed beside measured."""
    entries = [entry for entry in [*found["front"], *found["off_front"]] if entry["trained"]]
    device = found["devices"][0]
    errors = {row["key"]: row for row in found["composed_against_measured"] if row["device"] == device}

    def error(entry: Entry) -> Cell:
        row = errors.get(entry["key"])
        return ("–", "") if row is None else (f"{row['error']:+.1%}", "composed")

    def trained(name: str, form: str) -> Callable[[Entry], Cell]:
        return lambda e: (format(e["trained"][name], form), e["trained"]["label"])

    def both(entry: Entry) -> Cell:
        trained = entry["trained"]
        return f"{trained['accuracy_all']:.3f} ({trained['blind_all']:.3f})", trained["label"]

    return table(
        [
            ("key", lambda e: (e["key"], "")),
            ("design", lambda e: (design(e), "")),
            ("open accuracy", _accuracy),
            ("blind", lambda e: (number(e["trained"]["blind_open"]), "majority")),
            ("above blind", trained("above_blind", "+.3f")),
            ("all questions (blind)", both),
            ("steps", lambda e: (str(e["trained"]["steps"]), "counted")),
            ("training s", lambda e: (f"{e['trained']['train_s']:.0f}", "wall clock")),
            ("latency ms", _latency("latency", device, "latency_ms", whole=False)),
            ("latency ms", _latency("measured", device, "latency_ms", whole=False)),
            ("error", error),
            (
                "in interval",
                lambda e: ("–" if e["key"] not in errors else _yes(errors[e["key"]]["inside_interval"]), ""),
            ),
        ],
        entries,
    )


def truth_table(found: dict[str, Any]) -> Table:
    """Every trained model of the run, best first: the score beside what training found, and the params baseline."""
    check = found["baseline_check"]
    models = sorted(check["models"], key=lambda one: -float(one["accuracy_open"]))
    order = {
        name: {one["key"]: place for place, one in enumerate(sorted(models, key=lambda m: -float(m[name])), 1)}
        for name in ("score", "params")
    }

    def ranked(name: str, text: Callable[[Entry], str], label: str) -> Callable[[Entry], Cell]:
        return lambda one: (f"{text(one)} (#{order[name][one['key']]})", label)

    return table(
        [
            ("key", lambda one: (one["key"], "")),
            ("design", lambda one: (design(one), "")),
            ("open accuracy", lambda one: (interval(one, "accuracy_open"), check["truth"].rpartition(", ")[2])),
            ("score", ranked("score", lambda one: f"{one['score']:.3f}", check["score_label"])),
            ("params M", ranked("params", lambda one: number(one["params"] / 1e6), "counted")),
        ],
        models,
    )


def truth_words(found: dict[str, Any]) -> str:
    """How the score and the params baseline rank the run's trained models."""
    check = found["baseline_check"]
    parts = [
        f"{name} tau {_ranked(check[name], 'kendall_tau')}, rho {_ranked(check[name], 'spearman_rho')}, "
        f"{_at_equal_cost(check[name])}, {check[name]['top_shared']:.0%} of the best tenth"
        for name in ("score", "params")
    ]
    return (
        f"Over the {check['n']} trained models, with 90 % bootstrap intervals: {'; '.join(parts)}. "
        f"Noise ceiling {check['noise_ceiling']}. {check['verdict']}. {_admission(found['score_fit']['proxies'])}"
    )


def _ranked(figures: dict[str, Any], name: str) -> str:
    """`+0.71 [+0.20, +1.00]`."""
    value, interval_of = figures[name], figures[f"{name}_interval"]
    if value is None:
        return "–"
    return f"{value:+.2f}" + ("" if interval_of is None else f" [{interval_of[0]:+.2f}, {interval_of[1]:+.2f}]")


def _at_equal_cost(figures: dict[str, Any]) -> str:
    """`tau +0.50 within 10 % params (4 pairs) and – within 10 % latency (0 pairs)`."""
    params, latency = figures["tau_equal_params"], figures["tau_equal_latency"]
    shown = ["–" if value is None else f"{value:+.2f}" for value in (params, latency)]
    return (
        f"tau {shown[0]} within 10 % params ({figures['pairs_equal_params']} pairs) and {shown[1]} within 10 % latency "
        f"({figures['pairs_equal_latency']})"
    )


def _admission(proxies: dict[str, Any]) -> str:
    """Which proxies the fit was offered beside the structure, what each gained and whether one was admitted."""
    gains = sorted(proxies["gains"].items(), key=lambda item: -item[1])
    offered = ", ".join(f"{name} {gain:+.2f}" for name, gain in gains) or "none that varies"
    return (
        f"Proxies offered to the score, with what each gains in log density of models left out (needed: "
        f"{proxies['least_gain']:.2f}): {offered}; admitted: {proxies['admitted'] or 'none'}."
    )


def _accuracy(entry: Entry) -> Cell:
    trained = entry["trained"]
    return ("–", "") if trained is None else (interval(trained, "accuracy_open"), trained["label"])


def _yes(claim: bool) -> str:
    return "yes" if claim else "NO"


def _latency(kind: str, device: str, name: str, whole: bool = True) -> Callable[[Entry], Cell]:
    def cell(entry: Entry) -> Cell:
        latency = entry[kind].get(device)
        if latency is None:
            return ("–", "")
        text = interval(latency, name) if whole and name == "latency_ms" else number(latency[name])
        return (text, latency["label"])

    return cell


def work_done(found: dict[str, Any]) -> str:
    """What the search did, in one sentence."""
    counts, search = found["counts"], found["search"]
    return (
        f"{counts['complete']:,} of {search['space_size']:,} designs evaluated ({counts['gated_out']:,} ruled out "
        f"by the gate, {counts['infeasible']} drawn but infeasible, {counts['failed']} failed, "
        f"{counts['duplicates_avoided']} duplicates avoided), {counts['trained']} trained; "
        + (f"{counts['unmeasured']} without latency ({NO_LATENCY}); " if counts["unmeasured"] else "")
        + (f"{duration(found['wall_s'])} of wall clock." if found["wall_s"] else "not ended yet.")
    )


def markdown(found: dict[str, Any]) -> str:
    """The report as Markdown."""
    limits = "; ".join(limit_text(found, text) for text in found["constraints"]) or "none"
    lines = [
        f"# {found['study']}",
        "",
        f"Space {found['space']}, device {', '.join(found['devices'])}, workload {found['workload']}; "
        f"objectives {', '.join(found['objectives'])}; constraints: {limits}.",
        "",
        *(f"- {line}" for line in [*found["verdict"], work_done(found)]),
    ]
    if found["front"]:
        lines += ["", "## Front, best first", "", *_markdown_table(front_table(found))]
    if any(entry["trained"] for entry in [*found["front"], *found["off_front"]]):
        lines += ["", "## Finalists", "", *_markdown_table(finalists_table(found))]
    if found["score_fit"]:
        lines += ["", "## Score against training", "", truth_words(found), "", *_markdown_table(truth_table(found))]
    return "\n".join(lines) + "\n"


def _markdown_table(shown: Table) -> list[str]:
    pairs = zip(shown.titles, shown.labels, strict=True)
    headings = [f"{title} ({label})" if label else title for title, label in pairs]
    head = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return head + ["| " + " | ".join(row) + " |" for row in shown.rows]


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows under the union of their columns, in order of appearance."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
