"""Workers: evaluations on long-lived Ray actors that may die, hang, or join late."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from nas.errors import RunnerError
from nas.execution import Evaluate
from nas.ray_session import connected, own_code, reach, started
from nas.search.evaluate import Outcome, Task

MOST_FAILED_STARTS = 5
MOST_DEATHS = 3  # of workers at one candidate; two may be an accident of their nodes
HEAD_PATIENCE_S = 15  # Ray itself waits for a head that is gone without end


class RayExecutor:
    """Up to `workers` actors that import torch once, here or on the nodes of a cluster that runs already.

    A dead or hanging actor is replaced. A task whose worker died is given to another one, since a node may just have
    gone, until MOST_DEATHS have died at it; one that took too long, or that raised, is not. Actors of nodes that join
    later are used from then on.
    """

    def __init__(
        self, evaluate: Evaluate, workers: int, timeout_s: float, cluster: str | None = None, patience_s: float = 60
    ) -> None:
        self.evaluate, self.timeout_s, self.patience_s = evaluate, timeout_s, patience_s
        self.ray = connected(cluster, own_code()) if cluster else started(workers)
        self.head = self.ray.get_runtime_context().gcs_address
        self.unreached_since: float | None = None
        self.actor_type = self.ray.remote(num_cpus=1, max_restarts=0)(_Worker)
        self.starting: dict[Any, Any] = {}  # by what tells that the actor is ready
        self.idle: list[Any] = []
        self.running: dict[Any, tuple[Task, Any, float]] = {}
        self.orphans: list[Task] = []  # their worker died
        self.deaths: Counter[str] = Counter()  # of workers, by the key of what they evaluated
        self.failed_starts = 0  # one after the other
        for _ in range(workers):
            self._start()
        self._wait_for_one()

    @property
    def has_room(self) -> bool:
        return len(self.idle) > len(self.orphans)

    @property
    def busy(self) -> int:
        return len(self.running) + len(self.orphans)

    def submit(self, task: Task) -> None:
        actor = self.idle.pop()
        self.running[actor.run.remote(task)] = (task, actor, time.monotonic())

    def next_outcome(self) -> tuple[Task, Outcome]:
        """Waits for any task; one that takes longer than the time limit is stopped and has failed."""
        while True:
            while self.orphans and self.idle:
                self.submit(self.orphans.pop(0))
            if not self.running:
                self._wait_for_one()
                continue
            finished = self._welcome(timeout_s=1.0) or self._overdue()
            if finished is not None:
                if not self.idle and not self.running:
                    self._wait_for_one()
                return finished

    def _welcome(self, timeout_s: float) -> tuple[Task, Outcome] | None:
        """The first thing that happens: an actor is ready, or a task has an outcome."""
        done, _ = self._asked(self.ray.wait, [*self.running, *self.starting], num_returns=1, timeout=timeout_s)
        if not done:
            self._look_for_head()
            return None
        if done[0] in self.running:
            return self._finish(done[0])
        actor = self.starting.pop(done[0])
        try:
            self.ray.get(done[0])
        except self.ray.exceptions.RayError as error:  # its node may have gone while it started
            self.failed_starts += 1
            if self.failed_starts > MOST_FAILED_STARTS:
                raise RunnerError(f"workers cannot start: {_last_line(error)}") from error
            self._start()
            return None
        self.failed_starts = 0
        self.idle.append(actor)
        return None

    def _wait_for_one(self) -> None:
        """Until an actor is idle. Raises: RunnerError where no node has room for one within the patience."""
        deadline = time.monotonic() + self.patience_s
        while not self.idle:
            self._welcome(timeout_s=1.0)
            if not self.idle and time.monotonic() > deadline:
                raise RunnerError(
                    f"no node had room for a worker within {self.patience_s:g} s; "
                    f"add one: ray start --address HEAD:6379"
                )

    def _overdue(self) -> tuple[Task, Outcome] | None:
        for reference, (task, actor, start) in list(self.running.items()):
            if time.monotonic() - start > self.timeout_s:
                del self.running[reference]
                self._replace(actor)
                reason = f"TimeoutError: took longer than {self.timeout_s:g} s, and its worker was stopped"
                return task, Outcome(task.candidate.key, {}, self.timeout_s, reason)
        return None

    def _finish(self, reference: Any) -> tuple[Task, Outcome] | None:
        task, actor, start = self.running.pop(reference)
        try:
            outcome = self._asked(self.ray.get, reference)
        except self.ray.exceptions.RayTaskError as error:  # raised by the task: it would again
            self.idle.append(actor)
            return task, _failed(task, start, error)
        except self.ray.exceptions.RayError as error:
            self._replace(actor)
            self.deaths[task.candidate.key] += 1
            if self.deaths[task.candidate.key] == MOST_DEATHS:
                return task, _failed(task, start, error, f"its worker died {MOST_DEATHS} times: ")
            self.orphans.append(task)
            return None
        self.idle.append(actor)
        return task, outcome

    def _asked(self, act: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Ray's answer. Raises: RunnerError where the cluster itself is gone."""
        try:
            return act(*arguments, **named)
        except (self.ray.exceptions.RaySystemError, self.ray.exceptions.RpcError) as error:
            raise RunnerError(f"the Ray cluster is gone ({_last_line(error)}); what is finished is kept") from error

    def _look_for_head(self) -> None:
        """Raises: RunnerError where the cluster's head has not been reached for `HEAD_PATIENCE_S`."""
        try:
            reach(self.head)
            self.unreached_since = None
        except OSError as error:
            now = time.monotonic()
            self.unreached_since = self.unreached_since or now
            if now - self.unreached_since >= HEAD_PATIENCE_S:
                raise RunnerError(
                    f"the Ray cluster is gone: its head {self.head} is not reached ({error.strerror or error}); "
                    f"what is finished is kept, go on with `nas resume`"
                ) from error

    def _start(self) -> None:
        actor = self.actor_type.remote(self.evaluate)
        self.starting[actor.__ray_ready__.remote()] = actor

    def _replace(self, actor: Any) -> None:
        self.ray.kill(actor)
        self._start()

    def close(self) -> None:
        self.ray.shutdown()


def _failed(task: Task, start: float, error: Exception, before: str = "") -> Outcome:
    reason = f"{before}{type(error).__name__}: {_last_line(error)}"
    return Outcome(task.candidate.key, {}, time.monotonic() - start, reason, str(error))


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


class _Worker:
    """Lives in its own process; every task runs with the threads that Ray gave it."""

    def __init__(self, evaluate: Evaluate) -> None:
        import torch

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self.evaluate = evaluate

    def run(self, task: Task) -> Outcome:
        return self.evaluate(task)
