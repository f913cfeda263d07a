"""The proposer draws each valid candidate once, under every sampler."""

from __future__ import annotations

import gc
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler
from optuna.trial import FrozenTrial, Trial, TrialState

import search_spaces
from nas.search.generations import Generations, Nsga2, Nsga3
from nas.search.proposer import POPULATION, Sampled

SPACE = search_spaces.load("micro", {"encoder": ["conv-micro"], "resolution": [64], "lm_depth": [1, 2]})


@pytest.mark.parametrize("name", ["nsga2", "tpe", "random"])
def test_every_candidate_is_proposed_exactly_once_and_then_none(name: str) -> None:
    proposer = Sampled(SPACE, ["maximize", "minimize"], name, seed=3)
    proposed = []
    while (candidate := proposer.propose()) is not None:
        assert candidate in SPACE
        proposed.append(candidate.key)
        proposer.tell(candidate, [float(len(proposed)), 1.0], {"limit": -1.0})
    assert len(set(proposed)) == len(proposed) == SPACE.size


def test_gp_proposes_valid_candidates_after_its_start_up_phase() -> None:
    space = search_spaces.load("micro")
    proposer = Sampled(space, ["maximize", "minimize"], "gp", seed=0)
    for turn in range(14):
        candidate = proposer.propose()
        assert candidate is not None
        assert candidate in space
        proposer.tell(candidate, [float(turn), float(candidate.lm_depth)], {})


def test_same_seed_same_proposals() -> None:
    def keys() -> list[str]:
        proposer = Sampled(search_spaces.load("micro"), ["maximize"], "nsga2", seed=7)
        found = []
        for _ in range(12):
            candidate = proposer.propose()
            assert candidate is not None
            proposer.tell(candidate, [float(candidate.lm_depth)], {})
            found.append(candidate.key)
        return found

    assert keys() == keys()


def test_constraints_reach_the_sampler_through_set_constraint() -> None:
    proposer = Sampled(SPACE, ["maximize"], "nsga2", seed=0)
    candidate = proposer.propose()
    assert candidate is not None
    proposer.tell(candidate, [1.0], {"memory_gib <= 1": 0.5})
    assert proposer.study.trials[-1].constraints == {"memory_gib <= 1": 0.5}


def test_nsga2_breeds_though_most_of_its_draws_are_snapped() -> None:
    proposer = Sampled(search_spaces.load("micro"), ["maximize"], "nsga2", seed=0)
    for _ in range(60):
        candidate = proposer.propose()
        assert candidate is not None
        proposer.tell(candidate, [float(candidate.lm_depth)], {})
    assert isinstance(proposer.sampler, Generations) and proposer.sampler.generation == 2


@pytest.mark.parametrize("name", ["nsga2", "nsga3", "random"])
def test_trials_are_forgotten_where_no_model_is_fitted_to_them(name: str) -> None:
    proposer = Sampled(search_spaces.load("pocket"), ["maximize", "minimize"], name, seed=0)
    before = trials_in_memory()
    for turn in range(300):
        candidate = proposer.propose()
        assert candidate is not None
        proposer.tell(candidate, [float(candidate.lm_depth), float(turn % 7)], {})
    assert trials_in_memory() - before < 3 * POPULATION


def trials_in_memory() -> int:
    gc.collect()
    return sum(type(one) is FrozenTrial for one in gc.get_objects())


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(("ours", "optunas"), [(Nsga2, NSGAIISampler), (Nsga3, NSGAIIISampler)])
def test_genetic_draws_are_those_of_optunas_own_samplers(
    ours: type[Nsga2 | Nsga3], optunas: type[NSGAIISampler | NSGAIIISampler]
) -> None:
    """With four trials under way at a time, of which every seventh fails, and a constraint."""
    held = ours(seed=5, population_size=8)
    held.begin(AXES)
    assert draws(held) == draws(optunas(seed=5, population_size=8))


AXES = {"a": list(range(6)), "b": ["x", "y", "z"], "c": [1], "d": list(range(9))}


def draws(sampler: BaseSampler) -> list[dict[str, Any]]:
    directions = ["maximize", "minimize"]
    study = optuna.create_study(directions=directions, sampler=sampler)
    under_way: list[tuple[Trial, int, int]] = []
    found = []
    for number in range(120):
        if isinstance(sampler, Generations):
            study = optuna.create_study(directions=directions, sampler=sampler)
        trial = study.ask()
        found.append({axis: trial.suggest_categorical(axis, values) for axis, values in AXES.items()})
        under_way.append((trial, number, sampler.generation if isinstance(sampler, Generations) else 0))
        if len(under_way) < 4:
            continue
        trial, first, generation = under_way.pop(first_to_end := number % 3)
        if number % 7 == 0:
            trial.study.tell(trial, state=TrialState.FAIL)
            continue
        trial.set_constraint("limit", trial.params["a"] - 4.0)
        told = trial.study.tell(trial, [trial.params["a"] + trial.params["d"], trial.params["d"] - first_to_end])
        if isinstance(sampler, Generations):
            told.number = first
            sampler.add(told, generation)
    return found
