"""What a worker does with one candidate: build it and score it. Small records in, small records out."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass

from nas.limits import Limits, within
from nas.records import ProxyScore
from search_spaces import Candidate


@dataclass(frozen=True, slots=True)
class Task:
    """One candidate to evaluate."""

    candidate: Candidate
    seed: int
    proxies: tuple[str, ...]
    limits: Limits


@dataclass(frozen=True, slots=True)
class Outcome:
    """Scores, or why there are none."""

    key: str
    proxies: dict[str, ProxyScore]
    wall_s: float
    error: str | None = None
    traceback: str | None = None


def evaluate(task: Task) -> Outcome:
    """Never raises for a failing candidate: the reason and the trace come back instead."""
    start = time.monotonic()
    try:
        import nas.model
        import nas.quality.score  # noqa: F401  # code is not the candidate's memory, and half an import harms the next one

        with within(task.limits):
            scores = _score(task)
    except Exception as error:  # the worker's edge: one failing candidate must not end the search
        reason = f"{type(error).__name__}: {error}"
        return Outcome(task.candidate.key, {}, time.monotonic() - start, reason, traceback.format_exc())
    return Outcome(task.candidate.key, scores, time.monotonic() - start, *_nothing_known(scores))


def _nothing_known(scores: dict[str, ProxyScore]) -> tuple[str, str | None] | tuple[None, None]:
    """Reason and trace where not one of the proxies gave a value; one that fails among others is only noted."""
    if not scores or any(score.value is not None for score in scores.values()):
        return None, None
    name, first = next(iter(scores.items()))
    return f"no proxy gave a value; {name}: {first.reason}", first.traceback


def _score(task: Task) -> dict[str, ProxyScore]:
    from nas.quality.score import score_candidate

    return score_candidate(task.candidate, task.seed, task.proxies)
