"""Anchors: a few spread candidates of the run's own space, trained first, that the score is then fitted on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from nas.config import FEWEST_ANCHORS
from nas.cost import cost
from nas.quality.anchored import Anchored
from nas.quality.gaussian import informative
from nas.quality.structure import structural
from nas.records import Training
from nas.run_folder import RunFolder
from nas.search.problem import Problem
from nas.search.training import train_all
from nas.store import Store
from search_spaces import Candidate


def train_anchors(
    problem: Problem,
    folder: RunFolder,
    store: Store,
    allowed: list[Candidate],
    say: Callable[[str], None],
    progress: Callable[[str, int, int], None],
) -> list[Candidate]:
    """Trains what is not yet trained of them and gives the problem its anchored score. Their weights are not kept."""
    known = {candidate.key: candidate for candidate in [*problem.space.survey, problem.baseline]}
    stored = store.meta(f"anchors:{folder.study}")
    if stored is None:
        trained = comparable(problem, store.trainings(folder.study))
        taken = [candidate for candidate in allowed if candidate.key in trained]
        chosen = [*taken, *choose(problem, allowed, problem.config.anchors - len(taken), taken)]
        store.set_meta(f"anchors:{folder.study}", json.dumps([candidate.key for candidate in chosen]))
    else:
        chosen = [known[key] for key in json.loads(stored)]
    say(f"anchors      {len(chosen)} of {len(allowed)} feasible candidates are trained to fit the score on")
    candidates = {candidate.key: candidate for candidate in chosen}
    train_all(problem, folder, store, candidates, say, progress, what="anchor", keep_weights=False)
    say(f"score        {in_words(use_anchors(problem, store.trainings(folder.study)))}")
    return chosen


def choose(problem: Problem, allowed: list[Candidate], count: int, taken: Sequence[Candidate] = ()) -> list[Candidate]:
    """`count` beside those that are taken: those after which the feasible part of the space is least uncertain."""
    ordered = sorted((one for one in allowed if one not in taken), key=lambda candidate: candidate.key)
    if count <= 0 or not ordered:
        return []
    return [ordered[index] for index in informative(problem.features.features(ordered), count)]


def use_anchors(problem: Problem, trainings: Mapping[str, Training]) -> Anchored | None:
    """Gives the problem the score fitted on every model of the run that was trained as long as its anchors."""
    model = fit(problem, trainings)
    if model is not None:
        candidates = [*problem.space.survey, problem.baseline]
        proxies = offered(problem, candidates) if model.admitted else None
        predicted = model.predict(candidates, proxies)
        problem.score_by({c.key: one for c, one in zip(candidates, predicted, strict=True)})
    return model


def in_words(model: Anchored | None) -> str:
    """What the score is now."""
    if model is None:
        return f"predicted:prior, since fewer than {FEWEST_ANCHORS} anchors could be trained"
    return f"predicted:anchored, fitted on {len(model.anchors)} trained models"


def fit(problem: Problem, trainings: Mapping[str, Training]) -> Anchored | None:
    """None where too few of the run's trained models are comparable."""
    known = {candidate.key: candidate for candidate in [*problem.space.survey, problem.baseline]}
    usable = {key: accuracy for key, accuracy in comparable(problem, trainings).items() if key in known}
    if len(usable) < FEWEST_ANCHORS:
        return None
    anchors = [known[key] for key in usable]
    proxies = offered(problem, anchors)
    return Anchored(problem.space.survey, anchors, list(usable.values()), problem.features, proxies=proxies)


def offered(problem: Problem, candidates: Sequence[Candidate]) -> list[dict[str, float]]:
    """The proxies that the fit may admit: params and those of the structure, which every candidate has unbuilt.

    The probed ones are known of evaluated candidates only: with them some would be scored by another rule than others.
    """
    found = []
    for candidate in candidates:
        costs = cost(candidate, problem.workload)
        found.append({"params": float(costs.params), **structural(candidate, costs)})
    return found


def comparable(problem: Problem, trainings: Mapping[str, Training]) -> dict[str, float]:
    """Accuracy by key of what was trained as long as this run trains."""
    return {key: one.accuracy_open for key, one in trainings.items() if one.steps == problem.config.train_steps}
