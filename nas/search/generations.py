"""NSGA-II and NSGA-III that hold their newest generation and its parents themselves.

Optuna's own look both up among all trials of the study at each proposal, so that time grows with the square of the
trials, and none may be forgotten. With these a trial has a study of its own. The draws are Optuna's, seed by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseGASampler, NSGAIIISampler, NSGAIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial


class Generations(BaseGASampler):
    """Answers a genetic sampler of Optuna when it asks for generations, parents and axes."""

    generation: int
    axes: dict[str, BaseDistribution]
    parents: list[FrozenTrial]
    children: list[FrozenTrial]

    def begin(self, axes: Mapping[str, Sequence[Any]]) -> None:
        """Before the first proposal."""
        self.axes = {name: CategoricalDistribution(axes[name]) for name in sorted(axes) if len(axes[name]) > 1}
        self.generation, self.parents, self.children = 0, [], []

    def add(self, trial: FrozenTrial, generation: int) -> None:
        """A finished trial under a number of its own. One that ends after its generation was whole is not bred from."""
        if generation == self.generation:
            self.children.append(trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.axes

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        assert self.population_size
        if len(self.children) >= self.population_size:
            self.parents = self.select_parent(study, self.generation + 1)
            self.generation, self.children = self.generation + 1, []
        return self.generation

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        return sorted(self.children, key=lambda trial: trial.number)

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """Best first to the first child of a generation, by number to the others, as Optuna does it."""
        found, self.parents = self.parents, sorted(self.parents, key=lambda trial: trial.number)
        return found


class Nsga2(Generations, NSGAIISampler):
    """Deb et al. 2002."""


class Nsga3(Generations, NSGAIIISampler):
    """Deb and Jain 2014."""
