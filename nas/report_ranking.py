"""Whether a run's score, counting parameters and each proxy ranked its trained models as training did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from nas.quality.agreement import agreement, agreement_at_equal_cost, bootstrap, top_overlap
from nas.records import Evaluation, Training

CEILING_DRAWS, Z95 = 200, 1.96
FEW = 8  # fewer trained models than this cannot prove a ranking


def baseline_check(
    evaluations: Sequence[Evaluation], trainings: Mapping[str, Training], left_out: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Did the score, and did counting parameters, rank this run's trained models as training did?

    Pairs count as decided where the 95 % intervals of their trained accuracies do not overlap. A model that the score
    was fitted on counts by what the fit without it says (`left_out`, by key).
    """
    left_out = left_out or {}
    trained = [e for e in evaluations if e.key in trainings and e.quality and e.cost]
    truth = [trainings[e.key] for e in trained]
    columns = {
        "score": [left_out.get(e.key, e.quality.value) for e in trained if e.quality],
        "params": [float(e.cost.params) for e in trained if e.cost],
    }
    decided = [(i, j) for i, j in combinations(range(len(truth)), 2) if _apart(truth[i], truth[j])]
    found: dict[str, Any] = {
        "truth": f"accuracy on open questions, {', '.join(sorted({t.label for t in truth})) or 'trained'}",
        "score_label": "predicted:anchored, each model left out of the fit"
        if left_out
        else ", ".join(sorted({e.quality.label for e in trained if e.quality})),
        "n": len(truth),
        "pairs": len(truth) * (len(truth) - 1) // 2,
        "pairs_decided": len(decided),
    }
    accuracy = [training.accuracy_open for training in truth]
    for name, column in columns.items():
        right = sum((column[i] - column[j]) * (accuracy[i] - accuracy[j]) > 0 for i, j in decided)
        intervals = {f"{figure}_interval": one for figure, one in bootstrap(column, accuracy).items()}
        found[name] = {
            **agreement(column, accuracy).to_dict(), **intervals, "pairs_right": right,
            **_at_equal_cost(column, accuracy, columns["params"], trained), "top_shared": top_overlap(column, accuracy),
        }  # fmt: skip
    found["noise_ceiling"] = _noise_ceiling(truth)
    found["models"] = [
        {
            "key": e.key, "candidate": e.candidate, "score": score, "params": e.cost.params,
            "accuracy_open": one.accuracy_open, "low": one.low, "high": one.high,
        }
        for e, one, score in zip(trained, truth, columns["score"], strict=True) if e.cost
    ]  # fmt: skip
    return {**found, "verdict": _ranking_verdict(found)}


def _at_equal_cost(
    column: Sequence[float], accuracy: Sequence[float], params: Sequence[float], trained: Sequence[Evaluation]
) -> dict[str, Any]:
    """Kendall's tau-b over pairs within 10 % of each other's parameters, and of their latency on the first device."""
    device = next((name for one in trained for name in one.latency), None)
    timed = [place for place, one in enumerate(trained) if device in one.latency]
    at_params = agreement_at_equal_cost(column, accuracy, params)
    at_latency = agreement_at_equal_cost(
        [column[place] for place in timed],
        [accuracy[place] for place in timed],
        [trained[place].latency[device].latency_ms for place in timed if device],
    )
    return {
        "tau_equal_params": at_params.kendall_tau, "pairs_equal_params": at_params.pairs,
        "tau_equal_latency": at_latency.kendall_tau, "pairs_equal_latency": at_latency.pairs,
    }  # fmt: skip


def _noise_ceiling(truth: Sequence[Training]) -> str:
    """A bound in words: a run trains each of its models once, so only the noise of its test questions is known.

    Mean Spearman of two redrawings of the trained accuracies, each within its own 95 % interval.
    """
    from random import Random
    from statistics import fmean

    if len(truth) < 3:
        return "unknown: no repeats"
    generator = Random(0)

    def again() -> list[float]:
        return [generator.gauss(one.accuracy_open, (one.high - one.low) / (2 * Z95)) for one in truth]

    rho = fmean(agreement(again(), again()).spearman_rho or 0.0 for _ in range(CEILING_DRAWS))
    return f"at most about rho {rho:.2f} (noise of the test questions alone; of repeated training unknown: no repeats)"


def _apart(first: Training, second: Training) -> bool:
    return first.low > second.high or second.low > first.high


def _ranking_verdict(found: dict[str, Any]) -> str:
    if found["n"] < 2:
        return "not decidable: fewer than two trained models"
    decided, right, by_params = found["pairs_decided"], found["score"]["pairs_right"], found["params"]["pairs_right"]
    if not decided:
        return f"not decidable: the 95 % intervals of all {found['n']} trained models overlap"
    compared = "better than" if right > by_params else "worse than" if right < by_params else "just as well as"
    few = f" (n = {found['n']}: an indication, no proof)" if found["n"] < FEW else ""
    pairs = "one pair" if decided == 1 else f"{decided} pairs"
    return (
        f"of the {pairs} that training tells apart, the score ordered {right} right and params {by_params}: "
        f"it ranked {compared} counting parameters{few}"
    )


def proxy_check(evaluations: Sequence[Evaluation], trainings: Mapping[str, Training]) -> list[dict[str, Any]]:
    """Each score against params over all scored candidates, and against training where there is any.

    A tau against params near 1 says that the score is the parameter count in other words.
    """
    scored = [e for e in evaluations if e.proxies and e.cost and e.quality]
    names = ["quality", *dict.fromkeys(name for e in scored for name in e.proxies if name != "params"), "params"]
    rows = []
    for name in names:
        known = [(e, value) for e in scored if (value := _score(e, name)) is not None]
        params = [float(e.cost.params) for e, _ in known if e.cost]
        trained = [(value, trainings[e.key].accuracy_open) for e, value in known if e.key in trainings]
        by_params = agreement([value for _, value in known], params)
        by_training = agreement([value for value, _ in trained], [accuracy for _, accuracy in trained])
        rows.append({"name": name, "against_params": by_params.to_dict(), "against_trained": by_training.to_dict()})
    return rows


def _score(evaluation: Evaluation, name: str) -> float | None:
    assert evaluation.quality is not None and evaluation.cost is not None
    if name in ("quality", "params"):
        return evaluation.quality.value if name == "quality" else float(evaluation.cost.params)
    score = evaluation.proxies.get(name)
    return None if score is None else score.value
