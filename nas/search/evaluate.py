"""What a worker does with one candidate: build it and score it. Small records in, small records out."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass

from nas.records import ProxyScore
from search_spaces import Candidate


@dataclass(frozen=True, slots=True)
class Task:
    """One candidate to evaluate."""

    candidate: Candidate
    seed: int
    proxies: tuple[str, ...]


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
        from nas.model import build
        from nas.quality.score import probe_batch, score

        model = build(task.candidate, seed=task.seed)
        scores = score(model, probe_batch(model, task.seed), task.proxies)
    except Exception as error:  # the worker's edge: one failing candidate must not end the search
        reason = f"{type(error).__name__}: {error}"
        return Outcome(task.candidate.key, {}, time.monotonic() - start, reason, traceback.format_exc())
    return Outcome(task.candidate.key, scores, time.monotonic() - start)
