"""Rungs halve candidates and double steps; the layers of the trained front go on."""

from __future__ import annotations

from stored_runs import designs, training

from nas.config import SearchConfig
from nas.search.problem import define
from nas.search.rungs import Rung, ladder, promoted


def test_the_ladder_ends_with_the_finalists() -> None:
    assert ladder(3, 120, 3) == [Rung(12, 30), Rung(6, 60), Rung(3, 120)]
    assert ladder(2, 100, 1) == [Rung(2, 100)]


def test_the_front_of_accuracy_and_cost_goes_on_before_what_it_dominates() -> None:
    problem = define(
        SearchConfig(space="micro", devices=["raspberry-pi-5-8gb"], constraints=[], objectives=["quality", "params"])
    )
    made = sorted(designs(6), key=lambda one: problem.metrics(one)["params"])
    candidates = {one.key: one for one in made}
    accuracies = [0.3, 0.2, 0.5, 0.4, 0.7, 0.6]  # by size: every second one is dominated
    trained = {one.key: training(one.key, accuracy) for one, accuracy in zip(made, accuracies, strict=True)}
    best = {made[0].key, made[2].key, made[4].key}
    assert set(promoted(problem, candidates, trained, 3)) == best
    assert best < set(promoted(problem, candidates, trained, 5))
    assert set(promoted(problem, candidates, trained, 2)) == {made[0].key, made[4].key}
