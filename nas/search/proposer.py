"""Proposer: what asks for the next design; here a named Optuna sampler over the space, by ask and tell, in memory.

Every axis is suggested on its whole fixed domain and snapped to a valid design, so samplers of every kind see one
encoding and an impossible design cannot be drawn. Samplers that fit a model learn the snapped parameters, by a trial
that is enqueued anew. To a genetic sampler such a trial belongs to no generation, and it would never breed: there the
draw keeps its own parameters and is told what its design reached. A draw of a design that was proposed before is closed
as failed here, in memory, and the last of REDRAWS stands for a neighbour; the persistent study holds designs only.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, Literal, NamedTuple, Protocol

import optuna
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState
from typing_extensions import TypeVar

from nas.search.generations import Generations, Nsga2, Nsga3
from search_spaces import Candidate

REDRAWS = {"gp": 1, "nsga2": 3, "nsga3": 3}  # each costs as much as a proposal, and these repeat themselves
OTHER_REDRAWS = 10
START_UP = 12  # random draws of samplers that fit a model
POPULATION = 20
Direction = Literal["minimize", "maximize"]


class Design(Protocol):
    """What can be drawn: a candidate, or a row of a table."""

    @property
    def key(self) -> str: ...

    def to_dict(self) -> Mapping[str, Any]: ...


Drawn = TypeVar("Drawn", bound=Design, default=Candidate)


class Space(Protocol[Drawn]):
    """Where designs are drawn from: a search space, or a table."""

    @property
    def axes(self) -> Mapping[str, Sequence[Any]]: ...

    @property
    def survey(self) -> Sequence[Drawn]: ...

    def surveyed(self, values: Mapping[str, Any]) -> Drawn: ...

    def neighbours(self, candidate: Any) -> list[Drawn]: ...


def sampler(name: str, seed: int) -> BaseSampler:
    """The sampler of that name: nsga2, nsga3, tpe, gp or random.

    CMA-ES is not among them: it needs one objective and axes that are numbers, and a space has names (encoder,
    projector, language model) and at least two objectives.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are marked experimental
        if name == "tpe":
            return TPESampler(seed=seed, multivariate=True, n_startup_trials=START_UP)
        if name == "gp":
            return GPSampler(seed=seed, n_startup_trials=START_UP)
        if name == "nsga3":
            return Nsga3(seed=seed, population_size=POPULATION)
    if name == "random":
        return RandomSampler(seed=seed)
    return Nsga2(seed=seed, population_size=POPULATION)


class Proposer(Protocol[Drawn]):
    """Proposes designs that were never proposed before, and learns what they reached."""

    seen: set[str]
    duplicates_avoided: int

    def propose(self) -> Drawn | None:
        """An unseen design, or None when there is none left."""

    def start(self, design: Drawn) -> Drawn:
        """Takes exactly this design as proposed: for seeds and resumed runs."""

    def tell(self, design: Drawn, values: Sequence[float], violations: dict[str, float]) -> None:
        """Objectives and constraint violations (<= 0 is kept) of a proposed design."""

    def tell_failed(self, design: Drawn) -> None: ...


class _Drawn(NamedTuple):
    """A trial under way, as a genetic sampler counts it: the how-manieth draw, and in which generation."""

    trial: Trial
    number: int
    generation: int


class Sampled(Generic[Drawn]):
    """Proposes by a named Optuna sampler, until the space is exhausted."""

    def __init__(self, space: Space[Drawn], directions: Sequence[Direction], sampler_name: str, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.directions = space, list(directions)
        self.sampler = sampler(sampler_name, seed)
        self.is_uniform = sampler_name == "random"
        self.genetic = self.sampler if isinstance(self.sampler, Generations) else None
        if self.genetic:
            self.genetic.begin(space.axes)
        self.study = self._new_study()
        self.redraws = REDRAWS.get(sampler_name, OTHER_REDRAWS)
        self.generator = random.Random(seed)
        self.seen: set[str] = set()
        self.duplicates_avoided = 0
        self._draws = 0
        self._open: dict[str, _Drawn] = {}

    @cached_property
    def _keys(self) -> frozenset[str]:
        return frozenset(design.key for design in self.space.survey)

    @property
    def exhausted(self) -> bool:
        return len(self.seen) >= len(self.space.survey)

    def propose(self) -> Drawn | None:
        if self.exhausted:
            return None
        if self.is_uniform:
            return self.start(self._unseen())
        for left in reversed(range(self.redraws)):
            trial = self._ask()
            values = self._suggest(trial)
            design = self.space.surveyed(values)
            if design.key not in self.seen:
                return self._snapped(design, trial, values)
            self.duplicates_avoided += 1
            if left:
                self.study.tell(trial, state=TrialState.FAIL)
        near = [one for one in self.space.neighbours(design) if one.key in self._keys and one.key not in self.seen]
        return self._snapped(self.generator.choice(near) if near else self._unseen(), trial, values)

    def start(self, design: Drawn) -> Drawn:
        """Random draws learn of no design, and genetic ones only of those that they drew."""
        if self.is_uniform or self.genetic:
            self.seen.add(design.key)
            return design
        self.study.enqueue_trial(self._parameters(design))
        trial = self._ask()
        self._suggest(trial)
        return self._opened(design, trial)

    def tell(self, design: Drawn, values: Sequence[float], violations: dict[str, float]) -> None:
        drawn = self._open.pop(design.key, None)
        if drawn is None:
            return
        for name, violation in violations.items():
            drawn.trial.set_constraint(name, violation)
        told = drawn.trial.study.tell(drawn.trial, list(values))
        if self.genetic:
            told.number = drawn.number
            self.genetic.add(told, drawn.generation)

    def tell_failed(self, design: Drawn) -> None:
        drawn = self._open.pop(design.key, None)
        if drawn is not None:
            drawn.trial.study.tell(drawn.trial, state=TrialState.FAIL)

    def _new_study(self) -> optuna.Study:
        return optuna.create_study(directions=self.directions, sampler=self.sampler)

    def _ask(self) -> Trial:
        if self.genetic:  # remembers what it needs
            self.study = self._new_study()
        self._draws += 1
        return self.study.ask()

    def _suggest(self, trial: Trial) -> dict[str, Any]:
        return {axis: trial.suggest_categorical(axis, values) for axis, values in self.space.axes.items()}

    def _snapped(self, design: Drawn, trial: Trial, values: Mapping[str, Any]) -> Drawn:
        if self.genetic or self._parameters(design) == values:
            return self._opened(design, trial)
        self.study.tell(trial, state=TrialState.FAIL)
        return self.start(design)

    def _opened(self, design: Drawn, trial: Trial) -> Drawn:
        self.seen.add(design.key)
        self._open[design.key] = _Drawn(trial, self._draws, self.genetic.generation if self.genetic else 0)
        return design

    def _unseen(self) -> Drawn:
        """Uniformly among what was not proposed; a space is exhausted by trials long before this gets slow."""
        while True:
            design = self.generator.choice(self.space.survey)
            if design.key not in self.seen:
                return design

    def _parameters(self, design: Drawn) -> dict[str, Any]:
        fields = design.to_dict()
        return {axis: fields[axis] for axis in self.space.axes}
