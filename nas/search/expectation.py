"""How long a search will take on this machine by the clock: closed-form work, the canary, and earlier searches' pace.

The constants speak of a machine whose canary takes 1.5 ms. A trial has one thread, and its time is in building what
its proxies read: shapes alone where they only count, an encoder that is run on the probe once for all trials if it has
weights, a decoder only where some read its values. Training ran at 0.65 and encoder features at 0.4 of the canary's
FLOPs per second. Small models take what starting their kernels takes: 52, 111 and 165 ms a step with one, three and
six layers of `micro`, and 1.5 ms a question that is asked. Beside the work, libraries are loaded once, and every model
is built, written and read again, by one thread (bench/search/RESULTS.md).

What a search's trials and its trainings took, as a multiple of what was expected of them, is kept in the user's cache:
the next of its kind here is expected to take as much as the last ones did, in a geometric mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from nas.cost_many import Costs, cost_of_candidates
from nas.latency.measure import canary_at
from nas.latency.request import ROUNDS
from nas.pareto import spread
from nas.quality.score import DEFAULT, probe_flops, proxies_of, what_it_sees
from nas.search.exact import weigh
from nas.search.problem import Problem
from nas.search.rungs import ladder
from nas.store import Store
from nas.train.recipe import Recipe
from nas.workload import Workload
from proxies import get
from search_spaces import Candidate
from search_spaces.catalogue import encoder

if TYPE_CHECKING:
    from nas.train.data import VqaData

CANARY_FLOPS = 2 * 512**3
REFERENCE_CANARY_MS = 1.5
TRIAL_S, TRIAL_S_PER_LAYER, DECODER_S_PER_PARAM = 0.03, 0.008, 3e-9  # the last to draw values, and for each that reads
TRAIN_SHARE, FEATURE_SHARE = 0.65, 0.4
STEP_S, STEP_S_PER_LAYER, STEP_S_PER_PARAM, QUESTION_S = 0.02, 0.025, 4e-9, 1.5e-3
FILE_S = 2.5e-3  # to read a picture or a window of sound
CHARACTERS = 3  # of a token of text
TYPICAL, MOST_TRIED, MOST_WEIGHED = 12, 200, 2000  # designs that stand for all: as anchors, as trials, for the front
TRIALS_START_S, TRAININGS_START_S = 2.0, 2.0  # libraries that the first of each loads
MODEL_S, MODEL_S_PER_PARAM = 0.25, 6e-9  # a training: its model built and written
APART_S = 3.0  # for the process in which a device's finalists are timed
EXPORT_S = 1.5  # of the best one, which is read, written and read again
WEIGHT_OF_PRIOR, MOST_WEIGHT = 0.25, 2.0  # of the closed form beside a search that was seen, and of all that were


@dataclass(frozen=True, slots=True)
class Material:
    """What is trained on, in numbers."""

    files: int
    held_out: int
    questions: float  # of a held-out file
    text_tokens: float  # of a question with its answer
    seconds: int = 0  # of a clip of sound

    @classmethod
    def of(cls, data: VqaData, *, hears: bool) -> Material:
        asked = data.test.questions
        characters = sum(len(one.text) + len(one.answer) for one in asked)
        return cls(
            len(data.train.images), len(data.test.images), len(asked) / len(data.test.images),
            characters / CHARACTERS / len(asked), _seconds(data) if hears else 0,
        )  # fmt: skip

    @property
    def workload(self) -> Workload:
        """One file."""
        return Workload(name="training", seconds=self.seconds, prompt_tokens=round(self.text_tokens) + 1, new_tokens=1)


@dataclass(frozen=True)
class Expected:
    """Seconds by the clock, of so many trials, anchors and finalists."""

    trials: int
    trainings: int
    trials_s: float
    trainings_s: float  # with what rungs train besides, the measurements and the export


@dataclass(frozen=True)
class Pace:
    """Seconds of a search by the closed form, and how many times that earlier searches of this kind took."""

    problem: Problem
    cache: Store
    canary_ms: float  # with the threads that trainings have
    alone_ms: float  # with one
    material: Material | None  # None where nothing can be trained

    @classmethod
    def now(cls, problem: Problem, cache: Store, data: VqaData | None) -> Pace:
        """By how fast this machine is just now: other work delays several threads far more than one."""
        material = None if data is None else Material.of(data, hears=problem.hears)
        return cls(problem, cache, canary_at(torch.get_num_threads()), canary_at(1), material)

    def expected(self, allowed: Sequence[Candidate]) -> Expected:
        """Trials, and anchors, rungs and finalists, of what the configuration asks."""
        config = self.problem.config
        trials = min(config.trials, len(allowed))
        like = _spread(allowed, min(trials, MOST_TRIED))
        trials_s = TRIALS_START_S * self._slower_alone + trials / len(like) * self.trials_s(like) / config.workers
        trainings, trainings_s = 0, 0.0
        if self.material is not None and config.anchors + config.finalists:
            trainings, trainings_s = config.anchors + config.finalists, TRAININGS_START_S * self._slower_alone
            trainings_s += self._each_s(_spread(allowed, TYPICAL), config.anchors, config.anchors)
        if self.material is not None and config.finalists:
            models = config.finalists * (2**config.rungs - 1)
            whole = config.finalists * config.rungs  # each rung costs the steps of the last one
            like = self._finalists(allowed)
            trainings_s += self._each_s(like, models, whole) + EXPORT_S * self._slower_alone
            trainings_s += sum(self._end_to_end_s(like, device) for device in self.problem.timings)
        learnt = self._learnt(self._trials), self._learnt(self._trainings)
        return Expected(trials, trainings, trials_s * learnt[0], trainings_s * learnt[1])

    def _finalists(self, allowed: Sequence[Candidate]) -> list[Candidate]:
        """Those that would be trained if trials said no more than the prior does."""
        config, weighed = self.problem.config, weigh(self.problem, _spread(allowed, MOST_WEIGHED))
        first = ladder(config.finalists, config.train_steps, config.rungs)[0].candidates
        return [weighed.candidates[place] for place in spread(first, weighed.front)]

    def _each_s(self, like: Sequence[Candidate], models: int, whole: int) -> float:
        """So many models like these, trained so many times for all steps together."""
        steps_s = self.steps_s(like, self.problem.config.train_steps)
        return (whole * steps_s + models * self.around_s(like)) / len(like)

    def _end_to_end_s(self, like: Sequence[Candidate], device: str) -> float:
        """The finalists' rounds on a device, and one before them, if they are like these."""
        rounds_s = sum((ROUNDS + 1) * self.problem.latency(one)[device].latency_ms / 1e3 for one in like)
        params = float(self._costs(like).params.sum())
        built_s = self._slower_alone * (MODEL_S * len(like) + MODEL_S_PER_PARAM * params)
        return APART_S * self._slower_alone + self.problem.config.finalists * (rounds_s + built_s) / len(like)

    def trials_s(self, candidates: Sequence[Candidate]) -> float:
        """All of them built and scored on one worker."""
        costs = cost_of_candidates(candidates, self.problem.workload)
        seconds, run, kept = 0.0, 0.0, dict[object, float]()  # the latter in FLOPs of encoders on the probe
        for one, params in zip(candidates, costs.lm_body_params.tolist(), strict=True):
            wanted = [get(name) for name in proxies_of(one, self.problem.config.proxies)]
            readers = sum(proxy.reads_decoder for proxy in wanted)
            seconds += TRIAL_S + TRIAL_S_PER_LAYER * one.lm_depth
            seconds += DECODER_S_PER_PARAM * params * (1 + readers) if readers else 0
            if any(proxy.needs for proxy in wanted):
                if encoder(one.encoder).weights:
                    kept[what_it_sees(one)] = probe_flops(one)
                else:
                    run += probe_flops(one)
        return seconds * self._slower_alone + (run + sum(kept.values())) / FEATURE_SHARE / self._rate_alone

    def steps_s(self, candidates: Sequence[Candidate], steps: int) -> float:
        """The steps of training of all of them."""
        recipe, of = Recipe(steps=steps), self._of
        costs = self._costs(candidates)
        tokens = recipe.images * (costs.visual_tokens + min(recipe.questions, of.questions) * of.text_tokens)
        products_s = float((6 * costs.lm_body_params * tokens).sum()) / TRAIN_SHARE / self._rate
        starting = sum(STEP_S + STEP_S_PER_LAYER * one.lm_depth for one in candidates)
        updating = STEP_S_PER_PARAM * float((costs.lm_body_params + costs.projector_params).sum())
        return steps * (products_s + (starting + updating) * self._slower)

    def around_s(self, candidates: Sequence[Candidate]) -> float:
        """All that comes with their trainings beside steps: models, features of encoders, tests."""
        costs, of = self._costs(candidates), self._of
        views = {(one.encoder, one.resolution): place for place, one in enumerate(candidates)}
        files = of.files + of.held_out
        flops = files * float(costs.vision_flops[list(views.values())].sum())
        asked = of.held_out * (costs.visual_tokens + of.questions * of.text_tokens)
        products_s = float((2 * costs.lm_body_params * asked).sum()) / TRAIN_SHARE + flops / FEATURE_SHARE
        models = MODEL_S * len(candidates) + MODEL_S_PER_PARAM * float(costs.params.sum())
        questions = len(candidates) * of.held_out * of.questions
        alone_s = self._slower_alone * (models + len(views) * files * FILE_S)
        return products_s / self._rate + self._slower * questions * QUESTION_S + alone_s

    def learn(self, expected: Expected, trials: int, trials_s: float, trainings: int, trainings_s: float) -> None:
        """What so many trials and trainings took by the clock, where so much was expected of them."""
        for name, planned, planned_s, done, took_s in (
            (self._trials, expected.trials, expected.trials_s, trials, trials_s),
            (self._trainings, expected.trainings, expected.trainings_s, trainings, trainings_s),
        ):
            if planned and done:
                self._keep(name, self._learnt(name) * took_s / (planned_s * done / planned))

    @property
    def _of(self) -> Material:
        assert self.material is not None
        return self.material

    def _costs(self, candidates: Sequence[Candidate]) -> Costs:
        """Of one file that is trained on."""
        return cost_of_candidates(candidates, self._of.workload)

    @property
    def _rate(self) -> float:
        """FLOPs a second of the canary with the threads that trainings have."""
        return CANARY_FLOPS / (self.canary_ms / 1e3)

    @property
    def _rate_alone(self) -> float:
        return CANARY_FLOPS / (self.alone_ms / 1e3)

    @property
    def _slower(self) -> float:
        """Than the machine that the constants speak of."""
        return self.canary_ms / REFERENCE_CANARY_MS

    @property
    def _slower_alone(self) -> float:
        return self.alone_ms / REFERENCE_CANARY_MS

    @cached_property
    def _trials(self) -> str:
        return f"pace:3:trials:{self.problem.space.name}:{','.join(sorted(self.problem.config.proxies or DEFAULT))}"

    @cached_property
    def _trainings(self) -> str:
        return f"pace:3:trainings:{self.problem.space.name}:{'own' if self.problem.config.data else 'made'}"

    def _kept(self, name: str) -> tuple[float, float]:
        """(logarithm of the factor, weight of what it was learnt from)."""
        log, weight = json.loads(self.cache.meta(name) or f"[0, {WEIGHT_OF_PRIOR}]")
        return float(log), float(weight)

    def _learnt(self, name: str) -> float:
        return math.exp(self._kept(name)[0])

    def _keep(self, name: str, factor: float) -> None:
        """Into the mean of the logarithms, in which no search weighs less than a third."""
        log, weight = self._kept(name)
        log = (weight * log + math.log(factor)) / (weight + 1)
        self.cache.set_meta(name, json.dumps([log, min(weight + 1, MOST_WEIGHT)]))


def _spread(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    return list(candidates)[:: -(-len(candidates) // count)]


def _seconds(data: VqaData) -> int:
    """Mean of some clips, whole seconds."""
    from nas.model.sound import SAMPLES_PER_S, read_clip

    some = data.train.images[:TYPICAL]
    return max(1, round(sum(len(read_clip(file)) for file in some) / SAMPLES_PER_S / len(some)))
