"""The exact front of a space that is too large to weigh: a dynamic programme over its two sides.

A design is a seeing side (encoder, views, projector, compression) and a language side (decoder, depth, precision). For
one decoder they meet in the number of visual tokens alone. Given both, latency is a sum over the sides, memory grows
with either, and the prior's quality is u(b) + s(a) - n(b) t(a): for a seeing side a it is a line in the decoder's n, so
that one which is beaten with the smallest and with the largest decoder is beaten with each between (and the other way
round). Sides that are beaten under the same tokens and the same partners are left out; of the others every pair is
weighed. Nothing is fitted or sampled. It does not hold for a score that is fitted on anchors, which knows no such form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from nas.constraints import LATENCY_METRICS
from nas.cost_many import cost_of_candidates
from nas.pareto import front_mask
from nas.search.exact import weigh
from nas.search.problem import Problem
from search_spaces import Candidate

MOST_WALKED = 500_000  # the five million of `edge` were not solved within three minutes
LANGUAGE_AXES = (
    "lm", "lm_depth", "lm_layers", "lm_ffn", "lm_heads", "lm_experts", "lm_weights", "kv_cache", "attention",
)  # fmt: skip
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Sides:
    """The designs of a space by their two sides: seeing side, language side -> number of the design."""

    numbers: Numbers  # sorted by `pairs`
    pairs: Numbers  # seeing * languages + language, ascending
    languages: int

    @classmethod
    def of(cls, problem: Problem) -> Sides:
        space = problem.space
        axes = list(space.domains)
        codes = space.numbering.codes(range(space.size))
        own = np.array([axis in LANGUAGE_AXES for axis in axes])
        lengths = np.array([len(domain) for domain in space.domains.values()])
        seeing = np.unique(_mixed(codes[:, ~own], lengths[~own]), return_inverse=True)[1]
        language = np.unique(_mixed(codes[:, own], lengths[own]), return_inverse=True)[1]
        languages = int(language.max()) + 1
        pairs = seeing.astype(np.int64) * languages + language
        order = np.argsort(pairs, kind="stable")
        return cls(order.astype(np.int64), pairs[order], languages)

    def number(self, seeing: int, language: int) -> int:
        return int(self.numbers[np.searchsorted(self.pairs, seeing * self.languages + language)])

    def partners(self) -> Iterator[tuple[int, Numbers]]:
        """Every seeing side with the language sides that it can have."""
        seeing = self.pairs // self.languages
        starts = np.flatnonzero(np.diff(seeing, prepend=-1))
        for first, last in zip(starts, [*starts[1:], len(seeing)], strict=True):
            yield int(seeing[first]), self.pairs[first:last] % self.languages


def applies(problem: Problem) -> bool:
    """Whether the form above is that of the problem."""
    space = problem.space
    metrics = {name.partition("@")[0] for name in problem.objectives} | {one.metric for one in problem.constraints}
    return (
        space.size <= MOST_WALKED
        and not problem.config.anchors
        and "cross-attention" not in space.domains["projector"]  # its layers are of both sides
        and metrics <= {"quality", "memory_gib", "params", *LATENCY_METRICS}
        and not any(one.of_file for one in problem.constraints)
    )


def front_of_sides(problem: Problem) -> list[Candidate]:
    """Every design of the exact front under the problem's constraints, of those that have a latency."""
    sides = Sides.of(problem)
    found: list[Candidate] = []
    for group in _meeting(problem, sides):
        seeing, languages = _measured(problem, sides, *group)
        if not seeing:
            continue
        partners = _made(problem, sides, [(seeing[0], one) for one in languages])
        params = cost_of_candidates(partners, problem.workload).params
        ends = list(dict.fromkeys([languages[int(np.argmin(params))], languages[int(np.argmax(params))]]))
        kept = _unbeaten(problem, sides, seeing, ends, swapped=False)
        left = _unbeaten(problem, sides, languages, _extremes(problem, sides, kept, ends), swapped=True)
        pairs = _made(problem, sides, [(a, b) for a in kept for b in left])
        found += _front(problem, pairs)
    return _front(problem, found)


def _meeting(problem: Problem, sides: Sides) -> Iterator[tuple[list[int], list[int]]]:
    """Groups of seeing sides that give one decoder equally many tokens and can have the same language sides.

    Where tokens leave inside the decoder (FastV), also after the same layer and down to the same share.
    """
    every = list(sides.partners())
    lm_of: dict[int, str] = {}
    groups: dict[tuple[str, int, int, int, bytes], tuple[list[int], list[int]]] = {}
    for seeing, languages in every:
        unknown = [(seeing, int(b)) for b in languages if int(b) not in lm_of]
        lm_of |= {b: one.lm for (_, b), one in zip(unknown, _made(problem, sides, unknown), strict=True)}
    firsts = [(a, by_lm) for a, languages in every for by_lm in _by_lm(languages.tolist(), lm_of)]
    made = _made(problem, sides, [(a, own[0]) for a, own in firsts])
    tokens = cost_of_candidates(made, problem.workload).visual_tokens
    for (seeing, own), one, count in zip(firsts, made, tokens.tolist(), strict=True):
        leaving = one.compression_factor if one.prune_layer else 0
        key = (one.lm, int(count), one.prune_layer, leaving, np.array(own).tobytes())
        groups.setdefault(key, ([], own))[0].append(seeing)
    yield from groups.values()


def _by_lm(languages: Sequence[int], lm_of: dict[int, str]) -> list[list[int]]:
    found: dict[str, list[int]] = {}
    for language in languages:
        found.setdefault(lm_of[language], []).append(language)
    return list(found.values())


def _made(problem: Problem, sides: Sides, pairs: Sequence[tuple[int, int]]) -> list[Candidate]:
    return list(problem.space.numbered([sides.number(a, b) for a, b in pairs]))


def _measured(problem: Problem, sides: Sides, seeing: list[int], languages: list[int]) -> tuple[list[int], list[int]]:
    """Those of a group that have a latency; a design lacks one by one of its sides, whatever the other is."""
    pairs = [(seeing[0], one) for one in languages] + [(one, languages[0]) for one in seeing]
    pairs += zip(seeing, cycle(languages), strict=False)
    known = next((pair for pair in pairs if problem.is_measured(_made(problem, sides, [pair])[0])), None)
    if known is None:
        return [], []
    left = [a for a in seeing if problem.is_measured(_made(problem, sides, [(a, known[1])])[0])]
    return left, [b for b in languages if problem.is_measured(_made(problem, sides, [(known[0], b)])[0])]


def _unbeaten(problem: Problem, sides: Sides, own: list[int], others: list[int], *, swapped: bool) -> list[int]:
    """Those of `own` that no other beats with each of the two partners."""
    columns = []
    for other in others:
        made = _made(problem, sides, [(other, one) if swapped else (one, other) for one in own])
        columns.append(np.array([_gains(problem, candidate) for candidate in made]))
    return [own[place] for place in np.flatnonzero(front_mask(np.hstack(columns)))]


def _extremes(problem: Problem, sides: Sides, seeing: list[int], ends: list[int]) -> list[int]:
    """The two whose quality follows the decoder least and most: the smallest and the largest t(a)."""
    least, most = (_made(problem, sides, [(a, b) for a in seeing]) for b in (ends[0], ends[-1]))
    steps = [problem.quality(b).value - problem.quality(a).value for a, b in zip(least, most, strict=True)]
    return list(dict.fromkeys([seeing[int(np.argmin(steps))], seeing[int(np.argmax(steps))]]))


def _gains(problem: Problem, candidate: Candidate) -> list[float]:
    """Objectives, what constraints speak of, and the memory that devices limit, as columns to maximise."""
    metrics = problem.metrics(candidate)
    missed = [-value for value in problem.violations(metrics).values()]
    return [*problem.maximised(metrics), *missed, -metrics["memory_gib"]]


def _front(problem: Problem, candidates: list[Candidate]) -> list[Candidate]:
    """The non-dominated of those that keep every constraint and fit every device."""
    weighed = weigh(problem, candidates)
    return [weighed.candidates[place] for place in weighed.front]


def _mixed(codes: NDArray[np.int16], lengths: NDArray[np.int64]) -> Numbers:
    """(n, axes) places -> (n,) one number each, in mixed radix."""
    found = np.zeros(len(codes), dtype=np.int64)
    for column, length in zip(codes.T, lengths, strict=True):
        found = found * int(length) + column
    return found
