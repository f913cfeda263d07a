"""How long a search will take on this machine by the clock: closed-form work, canaries, and earlier searches' pace.

Products of matrices follow the canary, and what Python does in between (building, reading, starting kernels) a loop of
Python: two machines can be alike in one and differ twofold in the other. The constants are seconds of one whose loop
takes REFERENCE_LOOP_MS (bench/search/RESULTS.md).

A trial has one thread, and its time is in building what its proxies read: shapes alone where they only count, an
encoder that is run on the probe once for all trials if it has weights, a decoder only where some read its values. A
step of training is the products of its decoder layers, of the vocabulary at the answers, and the scores of attention,
which are nearly everything in models as small as `micro`, whose text is bytes. Beside the work, libraries are loaded
once, weights that come in a package are unpacked once a cache folder, and every model is built, written and read again.

What a search's trials and its trainings took, as a multiple of what was expected of them, is kept in the user's cache:
the next of its kind here is expected to take as much as the last ones did, in a geometric mean.
"""

from __future__ import annotations

import json
import math
import timeit
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nas.cost_many import Costs, cost_of_candidates
from nas.latency.measure import canary_at
from nas.latency.plan import CANARY_FLOPS
from nas.latency.request import ROUNDS
from nas.model.pretrained import CONVERTERS, weights_file
from nas.pareto import spread
from nas.quality.score import DEFAULT, probe_flops, proxies_of, what_it_sees
from nas.search.exact import weigh
from nas.search.problem import Problem
from nas.search.rungs import Rung, ladder
from nas.store import Store
from nas.train.recipe import Recipe
from nas.workload import Workload
from proxies import get
from search_spaces import Candidate
from search_spaces.catalogue import encoder, language_model

if TYPE_CHECKING:
    from nas.train.data import VqaData

Numbers = NDArray[np.float64]

REFERENCE_LOOP_MS, LOOPS, LOOP_SAMPLES = 3.2, 100_000, 5
TRIAL_S, TRIAL_S_PER_LAYER, DECODER_S_PER_PARAM = 0.045, 0.012, 4.5e-9  # the last to draw values, and by each reader
TRAIN_SHARE, FEATURE_SHARE = 0.65, 0.4  # of the canary's FLOPs per second, in training and in encoders
SCORE_FLOPS = 700  # an attention score takes as long as these of products, and twice as long in training
STEP_S, STEP_S_PER_LAYER, STEP_S_PER_PARAM = 5e-3, 3e-3, 4e-9
FILE_S = 3e-3  # to read a picture or a window of sound
CHARACTERS, PASSES = {"bytes": 1}, {"bytes": 3}  # by tokenizer: of a token, and passes until no two answers are alike
USUAL_CHARACTERS, USUAL_PASSES = 4, 1
TYPICAL, MOST_TRIED, MOST_WEIGHED = 12, 200, 2000  # designs that stand for all: as anchors, as trials, for the front
TRIALS_START_S, TRAININGS_START_S = 3.0, 3.0  # libraries that the first of each loads
UNPACKED_S_PER_WORD = 2e-4  # of a vocabulary, which Python reads twice; its weights are a fifth of that
MODEL_S, MODEL_S_PER_PARAM = 0.3, 2e-8  # a training: its model built and written
APART_S = 6.0  # for the process in which a device's finalists are timed
EXPORT_S = 0.5  # of the best one, which is read, written and read again
WEIGHT_OF_PRIOR, MOST_WEIGHT = 0.25, 2.0  # of the closed form beside a search that was seen, and of all that were


@dataclass(frozen=True, slots=True)
class Speeds:
    """How fast this machine is just now: other work delays several threads far more than one."""

    canary_ms: float  # with the threads that trainings have
    alone_ms: float  # with one
    loop_ms: float  # of Python itself

    @classmethod
    def now(cls) -> Speeds:
        loops_s = timeit.repeat(f"for place in range({LOOPS}): place * place", number=1, repeat=LOOP_SAMPLES)
        return cls(canary_at(torch.get_num_threads()), canary_at(1), 1e3 * min(loops_s))

    @property
    def flops_per_s(self) -> float:
        """Of the canary with the threads that trainings have."""
        return CANARY_FLOPS / (self.canary_ms / 1e3)

    @property
    def flops_per_s_alone(self) -> float:
        return CANARY_FLOPS / (self.alone_ms / 1e3)

    @property
    def slower(self) -> float:
        """In Python, than the machine that the constants speak of."""
        return self.loop_ms / REFERENCE_LOOP_MS


@dataclass(frozen=True, slots=True)
class Material:
    """What is trained on, in numbers."""

    files: int
    held_out: int
    questions: float  # of a held-out file
    question_characters: float
    answer_characters: float
    seconds: int = 0  # of a clip of sound

    @classmethod
    def of(cls, data: VqaData, *, hears: bool) -> Material:
        asked = data.test.questions
        return cls(
            len(data.train.images), len(data.test.images), len(asked) / len(data.test.images),
            sum(len(one.text) for one in asked) / len(asked), sum(len(one.answer) for one in asked) / len(asked),
            _seconds(data) if hears else 0,
        )  # fmt: skip

    @property
    def workload(self) -> Workload:
        """One file."""
        return Workload(name="training", seconds=self.seconds, prompt_tokens=1, new_tokens=1)


class Text(NamedTuple):
    """What decoders make of text: columns, one row a candidate."""

    tokens: Numbers  # of a question with its answer
    answered: Numbers  # of an answer
    passes: Numbers  # over a question that is tested
    word_flops: Numbers  # of the vocabulary at one token
    heads: Numbers  # of all layers


class Reading(NamedTuple):
    """Of one file's visual tokens and the questions about it, in one sequence: columns, one row a candidate."""

    products: Numbers  # FLOPs of the layers
    scores: Numbers  # of attention


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
    speeds: Speeds
    material: Material | None  # None where nothing can be trained
    packed: frozenset[str] = frozenset()  # weights that no training has unpacked yet

    @classmethod
    def now(cls, problem: Problem, cache: Store, data: VqaData | None) -> Pace:
        """By how fast this machine is just now."""
        material = None if data is None else Material.of(data, hears=problem.hears)
        packed = frozenset(name for name in CONVERTERS if not weights_file(name).is_file())
        return cls(problem, cache, Speeds.now(), material, packed)

    def expected(self, allowed: Sequence[Candidate]) -> Expected:
        """Trials, and anchors, rungs and finalists, of what the configuration asks."""
        config = self.problem.config
        trials = min(config.trials, len(allowed))
        like = _spread(allowed, min(trials, MOST_TRIED))
        trials_s = TRIALS_START_S * self.speeds.slower + trials / len(like) * self.trials_s(like) / config.workers
        trainings, trainings_s = 0, 0.0
        if self.material is not None and config.anchors + config.finalists:
            trainings, trainings_s = config.anchors, TRAININGS_START_S * self.speeds.slower + self.unpacking_s(like)
            trainings_s += self._each_s(_spread(allowed, TYPICAL), config.anchors, config.anchors)
        if self.material is not None and config.finalists:
            finalists, most = self._finalists(allowed)
            climbed = [(min(rung.candidates, most), rung.steps) for rung in self._rungs]
            whole = sum(models * steps for models, steps in climbed) / config.train_steps
            trainings += climbed[-1][0]
            trainings_s += self._each_s(finalists, sum(models for models, _ in climbed), whole)
            trainings_s += EXPORT_S * self.speeds.slower
            trainings_s += sum(self._end_to_end_s(finalists, climbed[-1][0], one) for one in self.problem.timings)
        learnt = self._learnt(self._trials), self._learnt(self._trainings)
        return Expected(trials, trainings, trials_s * learnt[0], trainings_s * learnt[1])

    @property
    def _rungs(self) -> list[Rung]:
        config = self.problem.config
        return ladder(config.finalists, config.train_steps, config.rungs)

    def _finalists(self, allowed: Sequence[Candidate]) -> tuple[list[Candidate], int]:
        """Those that would be trained if trials said no more than the prior does, and how many there can be at most.

        A front can have fewer designs than are asked for; anchors let designs be trained that are not on it.
        """
        weighed = weigh(self.problem, _spread(allowed, MOST_WEIGHED))
        chosen = [weighed.candidates[place] for place in spread(self._rungs[0].candidates, weighed.front)]
        return chosen, len(allowed) if self.problem.config.anchors else len(weighed.front)

    def _each_s(self, like: Sequence[Candidate], models: int, whole: float) -> float:
        """So many models like these, trained so many times for all steps together."""
        steps_s = self.steps_s(like, self.problem.config.train_steps)
        return (whole * steps_s + models * self.around_s(like)) / len(like)

    def _end_to_end_s(self, like: Sequence[Candidate], models: int, device: str) -> float:
        """The rounds of so many like these on a device, and one before them."""
        rounds_s = sum((ROUNDS + 1) * self.problem.latency(one)[device].latency_ms / 1e3 for one in like)
        built_s = MODEL_S * len(like) + MODEL_S_PER_PARAM * float(self._costs(like).params.sum())
        slower = self.speeds.slower
        return APART_S * slower + models * (rounds_s + slower * built_s) / len(like)

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
        encoders_s = (run + sum(kept.values())) / FEATURE_SHARE / self.speeds.flops_per_s_alone
        return seconds * self.speeds.slower + encoders_s

    def unpacking_s(self, candidates: Sequence[Candidate]) -> float:
        """The weights of their language models out of the packages that they come in, where that was never done.

        Those of encoders take a few tenths of a second each.
        """
        models = {one.lm: language_model(one.lm) for one in candidates}.values()
        return self.speeds.slower * sum(UNPACKED_S_PER_WORD * lm.vocab for lm in models if lm.weights in self.packed)

    def steps_s(self, candidates: Sequence[Candidate], steps: int) -> float:
        """The steps of training of all of them."""
        recipe, costs, text = Recipe(steps=steps), self._costs(candidates), self._text(candidates)
        asked = min(recipe.questions, self._of.questions)
        reading = self._reading(costs, text, asked)
        products = (
            3 * reading.products + 2 * text.word_flops * asked * text.answered
        )  # a whole vocabulary stays as it is
        flops = recipe.images * float((products / TRAIN_SHARE + 2 * SCORE_FLOPS * reading.scores).sum())
        starting = sum(STEP_S + STEP_S_PER_LAYER * one.lm_depth for one in candidates)
        updating = STEP_S_PER_PARAM * float((costs.lm_body_params + costs.projector_params).sum())
        return steps * (flops / self.speeds.flops_per_s + (starting + updating) * self.speeds.slower)

    def around_s(self, candidates: Sequence[Candidate]) -> float:
        """All that comes with their trainings beside steps: models, features of encoders, tests."""
        costs, text, of = self._costs(candidates), self._text(candidates), self._of
        views = {(one.encoder, one.resolution): place for place, one in enumerate(candidates)}
        files = of.files + of.held_out
        seen = files * float(costs.vision_flops[list(views.values())].sum())
        reading = self._reading(costs, text, of.questions)
        products = reading.products + text.word_flops * of.questions
        tests = of.held_out * float((text.passes * (products / TRAIN_SHARE + SCORE_FLOPS * reading.scores)).sum())
        models = MODEL_S * len(candidates) + MODEL_S_PER_PARAM * float(costs.params.sum())
        alone_s = self.speeds.slower * (models + len(views) * files * FILE_S)
        return (tests + seen / FEATURE_SHARE) / self.speeds.flops_per_s + alone_s

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

    def _text(self, candidates: Sequence[Candidate]) -> Text:
        of, found = self._of, list[tuple[float, ...]]()
        for one in candidates:
            lm = language_model(one.lm)
            characters = CHARACTERS.get(lm.tokenizer, USUAL_CHARACTERS)
            answered = of.answer_characters / characters + 1
            asked, passes = of.question_characters / characters + 1, PASSES.get(lm.tokenizer, USUAL_PASSES)
            found.append((asked + answered, answered, passes, 2 * lm.hidden * lm.vocab, one.lm_depth * lm.heads))
        return Text(*np.array(found).T)

    def _reading(self, costs: Costs, text: Text, questions: float) -> Reading:
        length = costs.visual_tokens + questions * text.tokens
        return Reading(2 * costs.lm_body_params * length, text.heads * length**2)

    @cached_property
    def _trials(self) -> str:
        return f"pace:4:trials:{self.problem.space.name}:{','.join(sorted(self.problem.config.proxies or DEFAULT))}"

    @cached_property
    def _trainings(self) -> str:
        return f"pace:4:trainings:{self.problem.space.name}:{'own' if self.problem.config.data else 'made'}"

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
