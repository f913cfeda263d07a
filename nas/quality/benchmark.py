"""What the shipped benchmark says of a design: `proxies/reference/microvlm.jsonl`, micro-VLMs that were trained.

A Gaussian process on their accuracies is the prior of spaces of its axes, most of whose encoders stand in it. Tasks
and language models of a run are others than the benchmark's: its order carries over better than its level, and
`Informed` lets a run's own anchors correct both.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from functools import cache, cached_property, lru_cache
from importlib import resources

import numpy as np

from nas.cost_rows import Matrix
from nas.quality.gaussian import Z80, GaussianProcess
from nas.quality.prior import inside
from nas.quality.structure import Structure
from nas.records import Quality
from search_spaces.candidate import OPTIONAL, Candidate


@cache
def trained() -> tuple[tuple[Candidate, ...], tuple[float, ...]]:
    """The benchmark's designs, and of each the mean accuracy over kinds of question and seeds."""
    lines = (resources.files("proxies.reference") / "microvlm.jsonl").read_text(encoding="utf-8").splitlines()
    found: dict[Candidate, list[float]] = defaultdict(list)
    for row in map(json.loads, lines):
        found[Candidate.model_validate(row["candidate"])].append(float(np.mean(list(row["accuracy"].values()))))
    return tuple(found), tuple(float(np.mean(accuracies)) for accuracies in found.values())


def speaks_of(candidates: Sequence[Candidate]) -> bool:
    """Whether the benchmark has trained with the encoder of half of them or more; the others go by their sizes.

    Not where one has what no model of the benchmark had: tiles, pruning, narrow weights, a second encoder. Which of the
    layers of a pretrained LM stay is left aside.
    """
    designs = trained()[0]
    had = {name: {getattr(one, name) for one in designs} for name in OPTIONAL if name != "lm_layers"}
    if any(getattr(candidate, name) not in values for candidate in candidates for name, values in had.items()):
        return False
    known = {one.encoder for one in designs}
    return 2 * sum(candidate.encoder in known for candidate in candidates) >= len(candidates)


class Benchmark:
    """Predicts the accuracy of designs of `space` from the trained ones, or from `known` in their place."""

    def __init__(
        self, space: Sequence[Candidate], known: tuple[Sequence[Candidate], Sequence[float]] | None = None
    ) -> None:
        designs, accuracies = known or trained()
        self.space = space
        self.structure = Structure([*designs, *space])
        self.process = GaussianProcess(self.structure.features(designs), accuracies)

    def posterior(self, candidates: Sequence[Candidate]) -> tuple[Matrix, Matrix]:
        """(candidates,) expected accuracies and their standard deviations."""
        return self.process.predict(self.structure.features(candidates))

    @cached_property
    def posterior_of_space(self) -> tuple[Matrix, Matrix]:
        """The same of every design of the space."""
        return self.posterior(self.space)

    @cached_property
    def of_space(self) -> dict[str, Quality]:
        """What it predicts of every design of the space, by key."""
        return {one.key: told for one, told in zip(self.space, _told(*self.posterior_of_space), strict=True)}

    def predict(self, candidates: Sequence[Candidate]) -> list[Quality]:
        """One Quality a candidate, with an 80 % interval."""
        return _told(*self.posterior(candidates))


def _told(means: Matrix, deviations: Matrix) -> list[Quality]:
    return [
        Quality(inside(mean), inside(mean - half), inside(mean + half), "predicted:prior")
        for mean, half in zip(means.tolist(), (Z80 * deviations).tolist(), strict=True)
    ]


@lru_cache(maxsize=2)
def benchmark_of(space: tuple[Candidate, ...]) -> Benchmark:
    """Fitted once, though a report defines the run's problem anew each time that it is written."""
    return Benchmark(space)


class Informed:
    """Features of a design for a run's anchors: its structure, and what the benchmark says of it.

    A dozen anchors are to correct the benchmark, not to replace it: OWN is small beside TOLD. Both were chosen on the
    benchmark itself, its easy-VQA questions foretold from its emoji questions and the other way round.
    """

    OWN, TOLD = 0.3, 3.0

    def __init__(self, benchmark: Benchmark) -> None:
        self.benchmark = benchmark
        self.structure = Structure(benchmark.space)
        told, _ = benchmark.posterior_of_space
        self.mean, self.scale = float(told.mean()), float(told.std()) or 1.0

    def features(self, candidates: Sequence[Candidate]) -> Matrix:
        """(candidates, features)."""
        told, _ = self.benchmark.posterior(candidates)
        standard = (told - self.mean) / self.scale
        return np.hstack([self.OWN * self.structure.features(candidates), self.TOLD * standard[:, None]])
