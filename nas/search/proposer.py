"""Proposer: a named Optuna sampler over the space, by ask and tell, in memory.

Every axis is suggested on its whole fixed domain and snapped to a valid candidate, so samplers of every kind see one
encoding and an impossible candidate cannot be drawn. A draw that was snapped or seen before is closed as failed here,
in memory; the persistent study never hears of it.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from typing import Literal, cast

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState

from search_spaces import Candidate, SearchSpace

MOST_REDRAWS = 30
Direction = Literal["minimize", "maximize"]


def sampler(name: str, seed: int) -> BaseSampler:
    """The sampler of that name: nsga2, tpe, gp or random."""
    if name == "tpe":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # multivariate is marked experimental
            return TPESampler(seed=seed, multivariate=True, n_startup_trials=12)
    if name == "gp":
        return GPSampler(seed=seed, n_startup_trials=12)
    if name == "random":
        return RandomSampler(seed=seed)
    return NSGAIISampler(seed=seed, population_size=20)


class Proposer:
    """Proposes candidates that were never proposed before, until the space is exhausted."""

    def __init__(self, space: SearchSpace, directions: Sequence[Direction], sampler_name: str, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space = space
        self.study = optuna.create_study(directions=list(directions), sampler=sampler(sampler_name, seed))
        self.generator = random.Random(seed)
        self.seen: set[str] = set()
        self.duplicates_avoided = 0
        self._open: dict[str, Trial] = {}

    @property
    def exhausted(self) -> bool:
        return len(self.seen) >= len(self.space.survey)

    def propose(self) -> Candidate | None:
        """An unseen candidate, or None when there is none left."""
        if self.exhausted:
            return None
        for _ in range(MOST_REDRAWS):
            trial = self.study.ask()
            drawn = {axis: trial.suggest_categorical(axis, values) for axis, values in self.space.axes.items()}
            candidate = self.space.surveyed(cast("dict[str, str | int]", drawn))
            if candidate.key not in self.seen:
                if self._parameters(candidate) == drawn:
                    return self._opened(candidate, trial)
                self.study.tell(trial, state=TrialState.FAIL)
                return self.start(candidate)
            self.duplicates_avoided += 1
            self.study.tell(trial, state=TrialState.FAIL)
        unseen = {c.key: c for c in self.space.survey if c.key not in self.seen}
        pool = [c for c in self.space.neighbours(candidate) if c.key in unseen] or list(unseen.values())
        return self.start(self.generator.choice(pool))

    def start(self, candidate: Candidate) -> Candidate:
        """Opens a trial with exactly this candidate: for seeds, snapped draws and resumed runs."""
        self.study.enqueue_trial(self._parameters(candidate))
        trial = self.study.ask()
        for axis, values in self.space.axes.items():
            trial.suggest_categorical(axis, values)
        return self._opened(candidate, trial)

    def tell(self, candidate: Candidate, values: Sequence[float], violations: dict[str, float]) -> None:
        """Objectives and constraint violations (<= 0 is kept) of a proposed candidate."""
        trial = self._open.pop(candidate.key)
        for name, violation in violations.items():
            trial.set_constraint(name, violation)
        self.study.tell(trial, list(values))

    def tell_failed(self, candidate: Candidate) -> None:
        self.study.tell(self._open.pop(candidate.key), state=TrialState.FAIL)

    def _opened(self, candidate: Candidate, trial: Trial) -> Candidate:
        self.seen.add(candidate.key)
        self._open[candidate.key] = trial
        return candidate

    def _parameters(self, candidate: Candidate) -> dict[str, str | int]:
        fields = candidate.to_dict()
        return {axis: fields[axis] for axis in self.space.axes}
