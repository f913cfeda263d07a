"""The finalists: chosen along the front, trained by one recipe, and measured end to end in paired rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nas import pareto
from nas.config import SearchConfig
from nas.errors import RunnerError
from nas.records import Evaluation, Training
from nas.run_folder import RunFolder
from nas.search.anchors import comparable, in_words, use_anchors
from nas.search.front import front
from nas.search.funnel import LIMITS, funnel_of
from nas.search.problem import Problem, is_measurable
from nas.search.rungs import climb, ladder
from nas.search.session import Session
from nas.search.training import train_all
from nas.search.trials import try_one
from nas.store import Store
from search_spaces import Candidate

EXPORT = "export"  # folder of the best finalist, ready for `nas ask`


def prove(session: Session) -> None:
    """Trains and measures what is not yet trained and measured, then exports the best by trained accuracy."""
    problem, folder, store = session.problem, session.folder, session.store
    say, progress, config = session.listener.say, session.listener.progress, session.config
    evaluations = store.evaluations(folder.study)
    best = front(problem, evaluations)
    if not config.finalists or not best:
        return
    if problem.hears and config.data is None:
        say("finalists    none: designs that hear are trained on clips of yours; search again with --data FOLDER")
        return
    known = completed(evaluations)
    trainings = {}
    if problem.anchored and config.rungs == 1 and "quality" in problem.objectives and len(problem.objectives) > 1:
        trainings = train_by_gain(session, known)
    if not trainings:
        first = ladder(config.finalists, config.train_steps, config.rungs)[0].candidates
        chosen = [best[index].key for index in pareto.spread(first, range(len(best)))]
        left = climb(problem, folder, store, {key: known[key] for key in chosen}, say, progress)
        trainings = train_all(problem, folder, store, left, say, progress, what="finalist")
    candidates = {key: known[key] for key in trainings}
    if not candidates:
        return
    if problem.anchored:
        say(f"score        {in_words(use_anchors(problem, store.trainings(folder.study)))}")
    _measure(
        problem, folder, store, candidates | trained_front(problem, known, store.trainings(folder.study)), say, progress
    )
    _export(problem.config, folder, candidates, trainings, say)


def completed(evaluations: Sequence[Evaluation]) -> dict[str, Candidate]:
    """The candidates by key that keep every constraint and did not fail."""
    return {one.key: Candidate.model_validate(one.candidate) for one in evaluations if one.status == "complete"}


def trained_front(
    problem: Problem, evaluated: Mapping[str, Candidate], trainings: Mapping[str, Training]
) -> dict[str, Candidate]:
    """What no design of the run beats that was trained as long; anchors can be among them."""
    accuracies = comparable(problem, trainings)
    keys = [key for key in evaluated if key in accuracies]
    points = [problem.maximised_as_trained(evaluated[key], accuracies[key]) for key in keys]
    return {keys[place]: evaluated[keys[place]] for place in pareto.front(points)}


def train_by_gain(session: Session, evaluated: dict[str, Candidate]) -> dict[str, Training]:
    """The finalists one after the other: each is where its training is expected to gain most, given all before it.

    The front of the predictions alone is a poor choice while a dozen anchors are all that is known: what the score
    takes for the best few are neighbours, right or wrong together. Any design that is allowed can be chosen; one that
    no trial has evaluated is evaluated first, and joins `evaluated`.
    """
    problem, folder, store, listener = session.problem, session.folder, session.store, session.listener
    funnel = funnel_of(problem, list((session.allowed | evaluated).values()), at_most=LIMITS)
    funnel.queue.clear()  # the anchors stand for its spread beginning
    stored = store.trainings(folder.study)
    finalists: dict[str, Training] = {}
    for key, accuracy in comparable(problem, stored).items():
        if key in evaluated:
            funnel.tell(funnel.start(evaluated[key]), _told(problem, accuracy), {})
            if stored[key].checkpoint is not None:
                finalists[key] = stored[key]
    tried = len(finalists)
    while tried < problem.config.finalists and (candidate := funnel.propose()) is not None:
        if candidate.key not in evaluated:
            if try_one(session, candidate).status != "complete":
                funnel.tell_failed(candidate)
                continue
            evaluated[candidate.key] = candidate
        tried += 1
        one = {candidate.key: candidate}
        trained = train_all(problem, folder, store, one, listener.say, listener.progress, what="finalist")
        finalists |= trained
        for training in trained.values():
            funnel.tell(candidate, _told(problem, training.accuracy_open), {})
        if not trained:
            funnel.tell_failed(candidate)
    return finalists


def _told(problem: Problem, accuracy: float) -> list[float]:
    """What the funnel learns of a training: it looks at the place of quality only."""
    return [accuracy if name == "quality" else 0.0 for name in problem.objectives]


def _measure(
    problem: Problem,
    folder: RunFolder,
    store: Store,
    candidates: dict[str, Candidate],
    say: Callable[[str], None],
    progress: Callable[[str, int, int], None],
) -> None:
    """All finalists in the same rounds on each device; done anew when one of them has no measurement yet."""
    from nas.latency.device import Device

    config = problem.config
    known = store.measurements(folder.study)
    for device, profile in problem.profiles.items():
        if not is_measurable(profile) or all(device in known.get(key, {}) for key in candidates):
            continue
        progress("measuring finalists end to end", 0, len(candidates))
        try:
            found = Device(profile, store, config.runtime, config.dtype).requests(candidates, problem.workload)
        except RunnerError as error:
            say(f"unmeasured   finalists on {device}: {error}; `nas resume` tries again")
            continue
        for key, result in found.items():
            store.add_measurement(folder.study, key, device, result.latency, result.totals_ms)


def _export(
    config: SearchConfig,
    folder: RunFolder,
    candidates: dict[str, Candidate],
    trainings: dict[str, Training],
    say: Callable[[str], None],
) -> None:
    """The finalist with the best trained accuracy, as a Hugging Face folder that was reloaded and compared."""
    from nas.export import export_hf, load_export
    from nas.train import own_data

    target = folder.path / EXPORT
    if target.exists():
        return
    key = max(trainings, key=lambda name: trainings[name].accuracy_open)
    model, processor = load_export(folder.finalist(key))
    training = trainings[key]
    card = {
        "study": folder.study,
        "candidate": candidates[key].to_dict(),
        "trained": {
            "label": training.label,
            "data": training.data,
            "open accuracy": f"{training.accuracy_open:.3f} [{training.low:.3f}, {training.high:.3f}]",
            "blind": f"{training.blind_open:.3f}",
            "steps": training.steps,
        },
    }
    asked = None if config.data is None else own_data.example(Path(config.data))[1]
    difference = export_hf(model, processor, target, card=card, asked=asked)
    say(f"exported     {key} to {target} (reloaded: max logit difference {difference:g})")
