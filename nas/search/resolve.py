"""Re-solving: the front of a run under other constraints, from what the run has stored. Nothing is evaluated anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from nas import config as configs
from nas.cost import cost
from nas.cost_many import cost_of_candidates
from nas.errors import NothingFeasibleError, NotMeasuredError, RunError, RunnerError
from nas.latency.device import Device
from nas.report_limits import MEMORY_LABEL, PARAMS_LABEL, amount, limit_labels
from nas.report_records import profiles, records
from nas.run_folder import RunFolder
from nas.search.anchors import use_anchors
from nas.search.confidence import in_words
from nas.search.exact import weigh
from nas.search.gate import fitting
from nas.search.problem import Problem, define, is_measurable
from nas.search.sides import front_of_sides
from nas.store import Store
from search_spaces import Candidate

WEIGHED, SIDES, KNOWN = "every candidate is weighed", "by the two sides of a design", "of those that are known"


def resolve(folder: RunFolder, constraints: Sequence[str]) -> dict[str, Any]:
    """The front under `constraints`, which replace the run's: over the whole space where its blocks are stored.

    Raises: UserError; NothingFeasibleError where no known candidate keeps them.
    """
    config = configs.load(folder.config_file, {"constraints": list(constraints)}, [])
    store = records(folder, config.storage)
    try:
        evaluations = store.evaluations(folder.study)
        trainings = store.trainings(folder.study)
        problem = define(config, profiles(folder, evaluations))
        for evaluation in evaluations:
            problem.known_latency[evaluation.key] = evaluation.latency
        _recall_timings(problem, store)
    finally:
        store.close()
    if config.anchors:
        use_anchors(problem, trainings)
    evaluated = {one.key: Candidate.model_validate(one.candidate) for one in evaluations if one.status != "failed"}
    surveyed = evaluated | {one.key: one for one in problem.space.survey}
    fit = {one.key for one in fitting(problem, list(surveyed.values()))}
    known = {key: one for key, one in surveyed.items() if key not in fit or problem.is_measured(one)}
    how = WEIGHED if problem.space.enumerable and surveyed.keys() <= known.keys() else KNOWN
    try:
        problem.resolve_constraints()
        if how == KNOWN:
            solved, why_not = front_of_sides(problem)
            known |= {one.key: one for one in solved or []}
            how = SIDES if solved is not None else f"{KNOWN}, as {why_not}"
        weighed = weigh(problem, [one for key, one in known.items() if key in fit or key not in surveyed])
        bounds = {one.text: problem.limit(one) for one in problem.constraints}
    except NotMeasuredError as error:
        raise RunError(f"a constraint speaks of a design that was not measured in this run: {error}") from error
    looked_at = problem.space.size if how == SIDES else len(known)
    if not weighed.candidates:
        hard = " and ".join(one.text for one in problem.constraints if not one.soft)
        raise NothingFeasibleError(
            f"none of {looked_at:,} candidates keeps {hard}; {_nearest(problem, list(known.values()), bounds)}"
        )
    any_design = weighed.candidates[0]
    front = []
    for place in weighed.front:
        candidate, share = weighed.candidates[place], float(weighed.confidence[place])
        training = trainings.get(candidate.key)
        front.append(
            {
                **_entry(problem, candidate),
                "confidence": {"share": share, "among": len(weighed.candidates), "verdict": in_words(share)},
                "evaluated": candidate.key in evaluated,
                "accuracy_open": None if training is None else training.accuracy_open,
            }
        )
    return {
        "study": folder.study, "devices": problem.devices, "constraints": [one.text for one in problem.constraints],
        "limits": bounds,
        "limit_labels": limit_labels(problem, problem.quality(any_design), problem.latency(any_design)),
        "exact": how in (WEIGHED, SIDES), "how": how, "weighed": looked_at, "candidates": problem.space.size,
        "feasible": None if how == SIDES else len(weighed.candidates),
        "front": front,
    }  # fmt: skip


def _entry(problem: Problem, candidate: Candidate) -> dict[str, Any]:
    """What is known of a design without its evaluation."""
    bill, violations = cost(candidate, problem.workload), problem.violations(problem.metrics(candidate))
    return {
        "key": candidate.key, "candidate": candidate.to_dict(),
        "quality": problem.quality(candidate).to_dict(),
        "latency": {device: problem.latency(candidate)[device].to_dict() for device in problem.devices},
        "memory_gib": bill.memory_gib, "memory_label": MEMORY_LABEL,
        "params": bill.params, "params_label": PARAMS_LABEL,
        "wishes_missed": [one.text for one in problem.constraints if one.soft and violations.get(one.text, 0.0) > 0],
    }  # fmt: skip


def _nearest(problem: Problem, known: Sequence[Candidate], bounds: Mapping[str, float]) -> str:
    """The nearest miss, and by how much, of those that the devices have room for; and the next step."""
    gigabytes = cost_of_candidates(known, problem.workload).memory_gib.tolist()
    missed = {
        one: problem.violations(problem.metrics(one))
        for one, size in zip(known, gigabytes, strict=True)
        if all(profile.has_room(size) for profile in problem.profiles.values()) and problem.is_measured(one)
    }
    if not missed:
        return "no latency is known of those that fit; go on with the run first: nas resume RUN"
    hard = [one for one in problem.constraints if not one.soft]

    def worst(candidate: Candidate) -> float:
        return max(missed[candidate].get(one.text, 0.0) / bounds[one.text] for one in hard)

    nearest = min(missed, key=worst)
    by = [(one, excess) for one in hard if (excess := missed[nearest].get(one.text, 0.0)) > 0]
    told = "; ".join(f"{one.text!r} is missed by {amount(one.metric, excess)}" for one, excess in by)
    return f"nearest: {nearest}: {told}; loosen a constraint"


def _recall_timings(problem: Problem, store: Store) -> None:
    """Takes the stored blocks; none of a device elsewhere that does not answer."""
    blocks = problem.blocks(list(problem.space.survey))
    for name, profile in problem.profiles.items():
        if is_measurable(profile):
            problem.take_timings(name, {})
            with suppress(RunnerError):
                device = Device(profile, store, problem.config.runtime, problem.config.dtype)
                problem.take_timings(name, device.known(blocks, fit_every=store.meta(f"fitted:{name}") is not None))
