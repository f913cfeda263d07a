"""Re-solving: the front of a run under other constraints, from what the run has stored. Nothing is evaluated anew."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from nas import config as configs
from nas.cost import cost
from nas.errors import NothingFeasibleError, NotMeasuredError, RunError, RunnerError
from nas.latency.device import Device
from nas.report_limits import MEMORY_LABEL, PARAMS_LABEL
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
    problem = define(config, profiles(folder))
    store = records(folder, config.storage)
    try:
        evaluations = store.evaluations(folder.study)
        trainings = store.trainings(folder.study)
        for evaluation in evaluations:
            problem.known_latency[evaluation.key] = evaluation.latency
        _recall_timings(problem, store)
    finally:
        store.close()
    if config.anchors:
        use_anchors(problem, trainings)
    evaluated = {one.key: Candidate.model_validate(one.candidate) for one in evaluations if one.status != "failed"}
    fit = {one.key: one for one in fitting(problem, problem.space.survey)}
    known = {key: one for key, one in (evaluated | fit).items() if problem.is_measured(one)}
    how = WEIGHED if problem.space.enumerable and fit.keys() <= known.keys() else KNOWN
    try:
        problem.resolve_constraints()
        if how == KNOWN:
            solved, why_not = front_of_sides(problem)
            known |= {one.key: one for one in solved or []}
            how = SIDES if solved is not None else f"{KNOWN}, as {why_not}"
        weighed = weigh(problem, list(known.values()))
    except NotMeasuredError as error:
        raise RunError(f"a constraint speaks of a design that was not measured in this run: {error}") from error
    if not weighed.candidates:
        count = problem.space.size if how == SIDES else len(known)
        raise NothingFeasibleError(
            f"none of {count:,} candidates keeps {' and '.join(constraints)}; loosen a constraint"
        )
    entries = []
    for place in weighed.front:
        candidate, sure = weighed.candidates[place], float(weighed.confidence[place])
        training = trainings.get(candidate.key)
        bill = cost(candidate, problem.workload)
        entries.append(
            {
                "key": candidate.key, "candidate": candidate.to_dict(),
                "quality": problem.quality(candidate).to_dict(),
                "latency": {device: problem.latency(candidate)[device].to_dict() for device in problem.devices},
                "memory_gib": bill.memory_gib, "memory_label": MEMORY_LABEL,
                "params": bill.params, "params_label": PARAMS_LABEL,
                "confidence": {"share": sure, "verdict": in_words(sure)},
                "evaluated": candidate.key in evaluated,
                "accuracy_open": None if training is None else training.accuracy_open,
            }
        )  # fmt: skip
    return {
        "study": folder.study, "devices": problem.devices, "constraints": list(constraints),
        "exact": how in (WEIGHED, SIDES), "how": how, "weighed": len(known), "candidates": problem.space.size,
        "feasible": len(weighed.candidates),
        "front": entries,
    }  # fmt: skip


def _recall_timings(problem: Problem, store: Store) -> None:
    """Takes the stored blocks; none of a device elsewhere that does not answer."""
    blocks = problem.blocks(list(problem.space.survey))
    for name, profile in problem.profiles.items():
        if is_measurable(profile):
            problem.take_timings(name, {})
            with suppress(RunnerError):
                device = Device(profile, store, problem.config.runtime, problem.config.dtype)
                problem.take_timings(name, device.known(blocks, fit_every=store.meta(f"fitted:{name}") is not None))
