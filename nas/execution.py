"""Executor: runs tasks in this process, or on long-lived Ray actors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nas.search.evaluate import Outcome, Task

Evaluate = Callable[[Task], Outcome]


class Executor(Protocol):
    """Takes tasks while it has room; gives outcomes in the order in which they finish."""

    @property
    def has_room(self) -> bool: ...

    @property
    def busy(self) -> int: ...

    def submit(self, task: Task) -> None: ...

    def next_outcome(self) -> tuple[Task, Outcome]: ...

    def close(self) -> None: ...


class SerialExecutor:
    """One task at a time, in this process: no start-up, no extra memory, reproducible."""

    def __init__(self, evaluate: Evaluate) -> None:
        self.evaluate = evaluate
        self.waiting: list[Task] = []

    @property
    def has_room(self) -> bool:
        return not self.waiting

    @property
    def busy(self) -> int:
        return len(self.waiting)

    def submit(self, task: Task) -> None:
        self.waiting.append(task)

    def next_outcome(self) -> tuple[Task, Outcome]:
        task = self.waiting.pop()
        return task, self.evaluate(task)

    def close(self) -> None:
        self.waiting.clear()


def executor(evaluate: Evaluate, workers: int, timeout_s: float, cluster: str | None = None) -> Executor:
    """In process for one worker, Ray for more, or for a cluster."""
    if workers == 1 and cluster is None:
        return SerialExecutor(evaluate)
    from nas.ray_workers import RayExecutor

    return RayExecutor(evaluate, workers, timeout_s, cluster)
