"""How long a search will take on this machine: closed-form work, the canary, and the pace of earlier searches.

The constants speak of two cores: building and scoring by the default proxies took 0.23 s a trial of `pocket` (93
million parameters) in one thread at a canary of 1.5 ms; training ran at 0.65 and encoder features at 0.4 of the
canary's FLOPs per second. Small models take what starting their kernels takes: 52, 111 and 165 ms a step with one,
three and six layers of `micro`, and 1.5 ms a question that is asked (bench/search/RESULTS.md). What a search then took,
as a multiple of that, is kept in the user's cache: the next of its kind here is expected to take as much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from nas.cost_many import cost_of_candidates
from nas.latency.measure import canary_at
from nas.quality.score import DEFAULT
from nas.records import Evaluation, Training
from nas.search.problem import Problem, is_measurable
from nas.store import Store
from nas.train.recipe import Recipe
from search_spaces import Candidate

CANARY_FLOPS = 2 * 512**3
TRIAL_S, TRIAL_S_PER_PARAM, REFERENCE_CANARY_MS = 0.07, 2e-9, 1.5
TRAIN_SHARE, FEATURE_SHARE = 0.65, 0.4
STEP_S, STEP_S_PER_LAYER, QUESTION_S = 0.02, 0.025, 1.5e-3
TEXT_TOKENS, TEST_QUESTIONS = 12, 10  # of a question with its answer; of a held-out image
TYPICAL = 12  # designs that stand for those that will be trained
END_TO_END_S = 12  # a finalist and a device that can be measured: its model in a process of its own, and the rounds


@dataclass(frozen=True)
class Pace:
    """Seconds of one candidate by the closed form, and how many times that earlier searches of this kind took."""

    problem: Problem
    cache: Store
    canary_ms: float

    @classmethod
    def now(cls, problem: Problem, cache: Store) -> Pace:
        """By how fast this machine is just now, with the threads that trials and trainings have."""
        return cls(problem, cache, canary_at(torch.get_num_threads()))

    def trials_s(self, candidates: Sequence[Candidate]) -> float:
        """All of them built and scored on one worker."""
        params = cost_of_candidates(candidates, self.problem.workload).params.sum()
        proxies = len(self.problem.config.proxies or DEFAULT)
        scoring = TRIAL_S_PER_PARAM * float(params) * self._slower * (1 + proxies) / (1 + len(DEFAULT))
        return (TRIAL_S * len(candidates) + scoring) * self._learnt(self._trials)

    def trainings_s(self, candidates: Sequence[Candidate], steps: int) -> float:
        """All of them trained and tested, with the features of encoders that are new to the list."""
        return (self._steps_s(candidates, steps) + self._tests_s(candidates)) * self._learnt(self._trainings)

    def _steps_s(self, candidates: Sequence[Candidate], steps: int) -> float:
        """Features and training alone, which is what a training's record says it took."""
        recipe = Recipe(steps=steps)
        costs = cost_of_candidates(candidates, self.problem.workload)
        seen = recipe.steps * recipe.images * (costs.visual_tokens + recipe.questions * TEXT_TOKENS)
        views = {(one.encoder, one.resolution): place for place, one in enumerate(candidates)}
        vision = 1.25 * self.problem.config.train_images * float(costs.vision_flops[list(views.values())].sum())
        products = float((costs.lm_body_params * 6 * seen).sum()) / TRAIN_SHARE + vision / FEATURE_SHARE
        starting_s = steps * sum(STEP_S + STEP_S_PER_LAYER * one.lm_depth for one in candidates)
        return products / self._rate + starting_s * self._slower

    def _tests_s(self, candidates: Sequence[Candidate]) -> float:
        images = self.problem.config.train_images / 4
        costs = cost_of_candidates(candidates, self.problem.workload)
        asked = images * (costs.visual_tokens + TEST_QUESTIONS * TEXT_TOKENS)
        products_s = float((costs.lm_body_params * 2 * asked).sum()) / TRAIN_SHARE / self._rate
        return products_s + len(candidates) * images * TEST_QUESTIONS * QUESTION_S * self._slower

    @property
    def _rate(self) -> float:
        """FLOPs a second of the canary."""
        return CANARY_FLOPS / (self.canary_ms / 1e3)

    @property
    def _slower(self) -> float:
        """Than the machine that the constants speak of."""
        return self.canary_ms / REFERENCE_CANARY_MS

    def learn(self, evaluations: Sequence[Evaluation], trainings: Mapping[str, Training]) -> tuple[float, float]:
        """Seconds that a run's own trials and trainings took; keeps by how much the closed form missed them."""
        ran = [one for one in evaluations if one.wall_s > 0 and one.status != "failed"]
        trials_s = sum(one.wall_s for one in ran)
        if ran:
            self._keep(self._trials, trials_s, self.trials_s([Candidate.model_validate(one.candidate) for one in ran]))
        known = {one.key: one for one in [*self.problem.space.survey, self.problem.baseline]}
        steps = self.problem.config.train_steps
        own = [key for key, one in trainings.items() if key in known and one.steps == steps]
        trainings_s = sum(trainings[key].train_s for key in own)
        if own:
            expected_s = self._steps_s([known[key] for key in own], steps) * self._learnt(self._trainings)
            self._keep(self._trainings, trainings_s, expected_s)
        return trials_s, trainings_s

    @property
    def _trials(self) -> str:
        return f"pace:trials:{self.problem.space.name}:{','.join(sorted(self.problem.config.proxies or DEFAULT))}"

    @property
    def _trainings(self) -> str:
        return f"pace:trainings:{self.problem.space.name}"

    def _learnt(self, name: str) -> float:
        return float(self.cache.meta(name) or 1)

    def _keep(self, name: str, took_s: float, expected_s: float) -> None:
        self.cache.set_meta(name, str(self._learnt(name) * took_s / expected_s))


def expected_s(pace: Pace, allowed: Sequence[Candidate]) -> tuple[float, float]:
    """(trials, trainings and measurements of anchors, rungs and finalists), for what the configuration asks."""
    problem, config = pace.problem, pace.problem.config
    trials_s = min(config.trials, len(allowed)) / len(allowed) * pace.trials_s(allowed) / config.workers
    looked_at = list(allowed)[:: max(1, len(allowed) // TYPICAL)][:TYPICAL]
    each_s = pace.trainings_s(looked_at, config.train_steps) / len(looked_at)
    devices = sum(map(is_measurable, problem.profiles.values()))
    trainings = config.anchors + config.finalists * config.rungs  # each rung costs what the last one does
    return trials_s, trainings * each_s + config.finalists * devices * END_TO_END_S


def in_words(seconds: float) -> str:
    """`40 s` or `6 min`."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
