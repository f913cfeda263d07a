"""The proposer draws each valid candidate once, under every sampler."""

from __future__ import annotations

import pytest

import search_spaces
from nas.search.proposer import Sampled

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
    told = [trial for trial in proposer.study.trials if trial.values]
    generations = [trial.system_attrs["NSGAIISampler:generation"] for trial in told]
    assert len(told) == 60 and set(generations) == {0, 1, 2}
