"""Executor: runs tasks in this process, in one of their own, or on long-lived Ray actors."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from math import inf
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
    """One task at a time, in this process: no start-up, no extra memory, reproducible.

    A task that has not returned after `timeout_s`, and so cannot be interrupted, ends the whole process.
    """

    def __init__(self, evaluate: Evaluate, timeout_s: float = inf) -> None:
        self.evaluate, self.timeout_s = evaluate, timeout_s
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
        watchdog = threading.Timer(min(self.timeout_s, threading.TIMEOUT_MAX), _give_up, [task, self.timeout_s])
        watchdog.daemon = True
        watchdog.start()
        try:
            return task, self.evaluate(task)
        finally:
            watchdog.cancel()

    def close(self) -> None:
        self.waiting.clear()


def _give_up(task: Task, after_s: float) -> None:
    sys.stderr.write(
        f"nas: trial {task.candidate.key} has not returned after {after_s:g} s and cannot be interrupted; go on with "
        f"`nas resume`, which runs trials in a process of their own\n"
    )
    sys.stderr.flush()
    os._exit(2)


def executor(
    evaluate: Evaluate, workers: int, timeout_s: float, cluster: str | None = None, apart: bool = False
) -> Executor:
    """For one worker in process, or in a process apart; Ray for more, or for a cluster."""
    if workers == 1 and cluster is None:
        if not apart:
            return SerialExecutor(evaluate, timeout_s)
        from nas.apart import ProcessExecutor

        return ProcessExecutor(timeout_s)
    from nas.ray_workers import RayExecutor

    return RayExecutor(evaluate, workers, timeout_s, cluster)
