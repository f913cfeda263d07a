"""Run folders with real stores for the tests of what is read from them: records as a search writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import yaml

import hardware_profiles
import nas.workload
import search_spaces
from nas.config import SearchConfig
from nas.cost import cost
from nas.environment import environment
from nas.quality.prior import prior
from nas.records import Evaluation, Latency, ProxyScore, Status, Training
from nas.run_folder import CONFIG, ENV, RunFolder
from nas.search.exact import weigh
from nas.search.problem import define
from nas.store import Store
from search_spaces import Candidate

QUESTIONS = 400
BLIND = 0.2


def designs(count: int) -> list[Candidate]:
    """Candidates of `micro`, evenly spaced over the space."""
    every = search_spaces.load("micro").candidates
    return [every[place * (len(every) - 1) // (count - 1)] for place in range(count)]


def latency(scale: float, label: str = "composed") -> Latency:
    """Ten times `scale` ms for the whole answer of eight tokens, with an interval of ten percent."""
    total = 10 * scale
    return Latency(
        preprocess_ms=scale, vision_ms=scale, projector_ms=scale / 2, prefill_ms=scale / 2, tpot_ms=scale, new_tokens=8,
        label=label, low_ms=0.9 * total, high_ms=1.1 * total,
    )  # type: ignore[arg-type]  # fmt: skip


def evaluation(candidate: Candidate, device: str, scale: float, limit_ms: float | None = None) -> Evaluation:
    """As the search records it; infeasible beyond `limit_ms`."""
    costs = cost(candidate, nas.workload.load("vqa-short"))
    composed = latency(scale)
    violations = {} if limit_ms is None else {f"latency_ms <= {limit_ms:g}": composed.latency_ms - limit_ms}
    infeasible = any(excess > 0 for excess in violations.values())
    proxies = {"params": ProxyScore(float(costs.params), 0.1), "synflow": ProxyScore(None, 0.1, "no <gradient>")}
    return Evaluation(
        key=candidate.key, candidate=candidate.to_dict(), status="infeasible" if infeasible else "complete",
        quality=prior(candidate, costs), latency={device: composed}, cost=costs,
        proxies={} if infeasible else proxies, violations=violations, wall_s=0.5,
    )  # fmt: skip


def estimated_run(
    out: Path, devices: Sequence[str], tried: Sequence[Candidate], *constraints: str, study: str = "study"
) -> RunFolder:
    """A run folder of devices that are not at hand: all is weighed, and some of it tried, as a search there does."""
    problem = define(SearchConfig(space="micro", devices=list(devices), constraints=list(constraints)))
    runs = []
    for one in tried:
        violations = problem.violations(problem.metrics(one))
        status: Status = "infeasible" if problem.breaks(violations) else "complete"
        known = evaluation(one, "", 1.0)
        known = replace(known, quality=problem.quality(one), latency=problem.latency(one), violations=violations)
        runs.append(replace(known, status=status))
    folder = stored_run(out, runs, constraints=constraints, devices=devices, study=study)
    weighed = weigh(problem, problem.space.candidates)
    front = {"gains": weighed.gains[weighed.front].tolist(), "errors": weighed.errors[weighed.front].tolist()}
    with closing(Store(folder.default_storage)) as store:
        keys = [weighed.candidates[place].key for place in weighed.front]
        store.set_meta(f"to_beat:{folder.study}", json.dumps({"keys": keys, **front}))
    return folder


def failed(candidate: Candidate, reason: str) -> Evaluation:
    """A candidate whose evaluation broke."""
    return Evaluation(candidate.key, candidate.to_dict(), "failed", None, {}, None, {}, {}, 0.1, reason, "Traceback")


def training(key: str, accuracy: float, half: float = 0.03) -> Training:
    """An accuracy with an interval of +- half."""
    return Training(
        key, "trained:short", "easy-vqa", 0, 100, 3200, 12.0, accuracy, BLIND, accuracy, 0.6, QUESTIONS,
        max(0.0, accuracy - half), min(1.0, accuracy + half), [(50, 1.5), (100, 0.5)], f"finalists/{key}",
    )  # fmt: skip


def stored_run(
    out: Path,
    evaluations: Sequence[Evaluation],
    accuracies: Mapping[str, float] | None = None,
    measured: Mapping[str, float] | None = None,
    constraints: Sequence[str] = (),
    study: str = "study",
    devices: Sequence[str] = ("local",),
) -> RunFolder:
    """A run folder, of this machine if of no other; `measured` gives the scale of `latency` by key."""
    folder = RunFolder(out / study)
    config = SearchConfig(space="micro", study=study, constraints=list(constraints), devices=list(devices))
    folder.write(CONFIG, yaml.safe_dump(config.model_dump(mode="json")))
    folder.write(ENV, json.dumps(environment()))
    for profile in map(hardware_profiles.load, devices):
        folder.write(f"devices/{profile.id}.yaml", hardware_profiles.dump(profile))
    store = Store(folder.default_storage)
    try:
        for item in evaluations:
            store.add_evaluation(study, item)
        for key, accuracy in (accuracies or {}).items():
            store.add_training(study, training(key, accuracy))
        for key, scale in (measured or {}).items():
            store.add_measurement(study, key, folder.devices[0], latency(scale, "measured"), (10 * scale,))
        store.set_meta(f"wall_s:{study}", "75.0")
    finally:
        store.close()
    return folder


def this_device() -> str:
    """The id of this machine's profile."""
    return hardware_profiles.detect().id
