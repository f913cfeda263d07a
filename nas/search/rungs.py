"""Rungs: many candidates of the front trained briefly, the better half of them longer, and so on to the finalists.

Successive halving (Jamieson & Talwalkar 2016) over real training, outside Optuna's pruner, which knows one objective
only: from each rung the layers of the front of trained accuracy against the other objectives go on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from nas import pareto
from nas.records import Training
from nas.run_folder import RunFolder
from nas.search.problem import Problem
from nas.search.training import TRAINING_ERRORS, training_data
from nas.store import Store
from search_spaces import Candidate


@dataclass(frozen=True, slots=True)
class Rung:
    """How many candidates are trained for how many steps."""

    candidates: int
    steps: int


def ladder(finalists: int, steps: int, rungs: int) -> list[Rung]:
    """Each rung halves the candidates and doubles the steps; the last one is the finalists' own."""
    return [Rung(finalists * 2**left, max(1, steps // 2**left)) for left in reversed(range(rungs))]


def climb(
    problem: Problem,
    folder: RunFolder,
    store: Store,
    candidates: Mapping[str, Candidate],
    say: Callable[[str], None],
    progress: Callable[[str, int, int], None],
) -> dict[str, Candidate]:
    """The finalists among the candidates of the first rung. What a rung has trained is not trained again."""
    from nas.train.finalists import train_finalist
    from nas.train.recipe import Recipe

    config = problem.config
    rungs = ladder(config.finalists, config.train_steps, config.rungs)
    if len(rungs) == 1:
        return dict(candidates)
    data = training_data(config.data, hears=problem.hears, most=config.train_images)
    left, costs = dict(candidates), []
    for rung, following in pairwise(rungs):
        trained: dict[str, Training] = {}
        for number, (key, candidate) in enumerate(left.items(), 1):
            progress(f"rung of {rung.steps} steps", number - 1, len(left))
            recipe = Recipe(steps=rung.steps, seed=config.seed)
            place = folder.path / "rungs" / str(rung.steps) / key
            try:
                trained[key] = train_finalist(candidate, recipe, data, place, keep_weights=False)
            except TRAINING_ERRORS as error:
                say(f"FAILED       rung of {rung.steps} steps, {key} {candidate}: {type(error).__name__}: {error}")
        spent = sum(one.train_s for one in trained.values())
        left = {key: left[key] for key in promoted(problem, left, trained, following.candidates)}
        costs.append(
            {
                "steps": rung.steps, "train_s": spent, "kept": list(left),
                "accuracy_open": {key: one.accuracy_open for key, one in trained.items()},
            }
        )  # fmt: skip
        say(f"rung         {len(trained)} candidates, {rung.steps} steps, {spent:.0f} s; {len(left)} go on")
    store.set_meta(f"rungs:{folder.study}", json.dumps(costs))
    return left


def promoted(
    problem: Problem, candidates: Mapping[str, Candidate], trained: Mapping[str, Training], count: int
) -> list[str]:
    """`count` of the trained by layers of their front, evenly along a layer that does not fit whole."""
    points = {
        key: problem.maximised_as_trained(candidates[key], training.accuracy_open) for key, training in trained.items()
    }
    chosen: list[str] = []
    while points and len(chosen) < count:
        keys = list(points)
        layer = [keys[place] for place in pareto.front(list(points.values()))]
        room = count - len(chosen)
        chosen += [layer[place] for place in pareto.spread(room, range(len(layer)))]
        for key in layer:
            del points[key]
    return chosen
