"""Executor: runs tasks in this process, or on long-lived Ray actors. The only file that imports ray."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from nas.errors import RunnerError
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


class RayExecutor:
    """`workers` actors that import torch once. A dead or hanging actor costs its one task and is replaced."""

    def __init__(self, evaluate: Evaluate, workers: int, timeout_s: float) -> None:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # else Ray writes a token into the user's home
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self.ray = ray
        self.evaluate = evaluate
        self.timeout_s = timeout_s
        threads = max(1, (os.cpu_count() or 1) // workers)
        if not ray.is_initialized():
            ray.init(
                num_cpus=workers,
                include_dashboard=False,
                log_to_driver=False,
                object_store_memory=200 * 2**20,
                _node_ip_address="127.0.0.1",
                runtime_env={"env_vars": {"OMP_NUM_THREADS": str(threads)}},
            )
        self.actor_type = ray.remote(num_cpus=1, max_restarts=0)(_Worker)
        self.idle: list[Any] = [self.actor_type.remote(evaluate) for _ in range(workers)]
        self.running: dict[Any, tuple[Task, Any, float]] = {}

    @property
    def has_room(self) -> bool:
        return bool(self.idle)

    @property
    def busy(self) -> int:
        return len(self.running)

    def submit(self, task: Task) -> None:
        actor = self.idle.pop()
        self.running[actor.run.remote(task)] = (task, actor, time.monotonic())

    def next_outcome(self) -> tuple[Task, Outcome]:
        """Waits for any task; one that takes longer than the time limit is stopped and has failed."""
        while True:
            done, _ = self.ray.wait(list(self.running), num_returns=1, timeout=1.0)
            if done:
                return self._finish(done[0])
            for reference, (task, actor, start) in list(self.running.items()):
                if time.monotonic() - start > self.timeout_s:
                    del self.running[reference]
                    self._replace(actor)
                    reason = f"TimeoutError: took longer than {self.timeout_s:.0f} s"
                    return task, Outcome(task.candidate.key, {}, self.timeout_s, reason)

    def _finish(self, reference: Any) -> tuple[Task, Outcome]:
        task, actor, start = self.running.pop(reference)
        try:
            outcome = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            self._replace(actor)
            lines = str(error).strip().splitlines()
            reason = f"{type(error).__name__}: {lines[-1] if lines else 'the worker died'}"
            return task, Outcome(task.candidate.key, {}, time.monotonic() - start, reason)
        self.idle.append(actor)
        return task, outcome

    def _replace(self, actor: Any) -> None:
        self.ray.kill(actor)
        self.idle.append(self.actor_type.remote(self.evaluate))

    def close(self) -> None:
        self.ray.shutdown()


class _Worker:
    """Lives in its own process; every task runs with the threads that Ray gave it."""

    def __init__(self, evaluate: Evaluate) -> None:
        import torch

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self.evaluate = evaluate

    def run(self, task: Task) -> Outcome:
        return self.evaluate(task)


class _Gauge:
    """Measures on the node that it was placed on; its node holds one slot, so that there is never a second at work."""

    def run(self, request: str) -> Iterator[str]:
        """JSON lines as they come, in a process of its own like on every other device."""
        import subprocess
        import sys

        process = subprocess.Popen(
            [sys.executable, "-m", "nas.latency.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin and process.stdout
        with process:
            process.stdin.write(request)
            process.stdin.close()
            for line in process.stdout:  # noqa: UP028 - Ray sends into its generators, which a file does not take
                yield line


def measure_on_ray(
    label: Mapping[str, str], slot: str, request: str, address: str | None = None, patience_s: float = 60
) -> Iterator[str]:
    """Lines of the worker on the node that bears the label and the slot, as they come.

    Raises: RunnerError where no such node has room within `patience_s`, or where it dies.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if not ray.is_initialized():
        try:
            ray.init(address=address or "auto", log_to_driver=False)
        except ConnectionError as error:
            raise RunnerError(
                f"no Ray cluster answers at {address or 'this machine'}; start one: ray start --head"
            ) from error
    gauge: Any = ray.remote(num_cpus=0, max_restarts=0)(_Gauge)
    actor: Any = gauge.options(resources={slot: 1}, label_selector=dict(label)).remote()
    wanted = ",".join(f"{key}={value}" for key, value in label.items())
    try:
        ready, _ = ray.wait([actor.__ray_ready__.remote()], timeout=patience_s)
        if not ready:
            raise RunnerError(
                f"no Ray node with a free slot {slot!r} and labels {wanted or 'any'} in {patience_s:.0f} s; "
                f"on the device run: ray start --address HEAD:6379 --labels {wanted or 'KEY=VALUE'} "
                f"--resources '{{\"{slot}\": 1}}'"
            )
        for line in actor.run.options(num_returns="streaming").remote(request):
            yield ray.get(line)
    except ray.exceptions.RayError as error:
        raise RunnerError(
            f"the Ray node with slot {slot!r} died: {type(error).__name__}; what was finished is kept"
        ) from error
    finally:
        ray.kill(actor)


def executor(evaluate: Evaluate, workers: int, timeout_s: float) -> Executor:
    """In process for one worker, Ray for more."""
    return SerialExecutor(evaluate) if workers == 1 else RayExecutor(evaluate, workers, timeout_s)
