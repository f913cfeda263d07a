"""Executor: runs tasks in this process, or on long-lived Ray actors. The only file that imports ray."""

from __future__ import annotations

import os
import socket
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

    def run(self, arguments: list[str], sent: bytes) -> Iterator[str]:
        """Lines of a Python process of its own, like on every other device. Its stdin ends when this actor does."""
        import json
        import subprocess
        import sys
        import tempfile

        import ray

        environment = {**os.environ, "NAS_NODE": ray.get_runtime_context().get_node_id()}
        # Ray kills the children of an actor outright; a grandchild lives to see its stdin end, and clears up.
        command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, *arguments]
        with tempfile.TemporaryFile() as said, subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=environment
        ) as process:  # fmt: skip
            assert process.stdin and process.stdout
            process.stdin.write(sent)
            process.stdin.flush()
            for line in process.stdout:
                yield line.decode(errors="replace")
            if process.wait() != 0:
                said.seek(0)
                words = said.read().decode(errors="replace").split("\n")
                reason = next((line for line in reversed(words) if line.strip()), f"exit code {process.returncode}")
                yield json.dumps({"kind": "error", "message": reason}) + "\n"


def measure_on_ray(
    label: Mapping[str, str],
    slot: str,
    arguments: list[str],
    sent: bytes,
    address: str | None = None,
    patience_s: float = 30,
) -> Iterator[str]:
    """Lines of `python arguments` on the node that bears the label and the slot, as they come; `sent` is its stdin.

    Raises: RunnerError where no such node is there within `patience_s`, or where it dies. A busy one is waited for.
    """
    ray = _connected(address)
    gauge: Any = ray.remote(num_cpus=0, max_restarts=0)(_Gauge)
    actor: Any = gauge.options(resources={slot: 1}, label_selector=dict(label)).remote()
    try:
        ready = actor.__ray_ready__.remote()
        while not ray.wait([ready], timeout=patience_s)[0]:
            if not any(_bears(node, label, slot) for node in ray.nodes()):
                raise RunnerError(_missing(label, slot, patience_s))
            yield '{"kind": "progress"}\n'  # another request has the slot
        for line in actor.run.options(num_returns="streaming").remote(arguments, sent):
            yield ray.get(line)
    except ray.exceptions.RayError as error:
        raise RunnerError(
            f"the node died ({type(error).__name__}); what was finished is kept, start it again and try again"
        ) from error
    finally:
        ray.kill(actor)


def _connected(address: str | None) -> Any:
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if not ray.is_initialized():
        try:
            _reach(address)
            ray.init(address=address or "auto", log_to_driver=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise RunnerError(
                f"no Ray cluster answers at {address or 'this machine'} ({' '.join(str(error).split())[:120]}); "
                f"start one: ray start --head"
            ) from error
    return ray


def _reach(address: str | None) -> None:
    """Raises: OSError at once, where Ray itself would try for over ten minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "://" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


def _bears(node: Mapping[str, Any], label: Mapping[str, str], slot: str) -> bool:
    return bool(node["Alive"] and node["Resources"].get(slot) and label.items() <= node["Labels"].items())


def _missing(label: Mapping[str, str], slot: str, patience_s: float) -> str:
    labels = ",".join(f"{key}={value}" for key, value in label.items())
    flag = f"--labels {labels} " if labels else ""
    return (
        f"no Ray node has the slot {slot!r} and the labels {labels or '(none)'} after {patience_s:g} s; on the device "
        f"run: ray start --address HEAD:6379 {flag}--resources '{{\"{slot}\": 1}}'"
    )


def main() -> int:
    """Measures through a cluster in a process of its own: a search in this program may have a cluster of its own.

    Stdin: the arguments of `measure_on_ray` as a line of JSON, then the bytes to be sent. Stdout: the device's lines.
    """
    import json
    import sys

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not come between the lines
    asked = json.loads(sys.stdin.buffer.readline())
    try:
        for line in measure_on_ray(**asked, sent=sys.stdin.buffer.read()):
            answers.write(line)
            answers.flush()
    except RunnerError as error:
        answers.write(json.dumps({"kind": "error", "message": str(error)}) + "\n")
        answers.flush()
        return 1
    return 0


def executor(evaluate: Evaluate, workers: int, timeout_s: float) -> Executor:
    """In process for one worker, Ray for more."""
    return SerialExecutor(evaluate) if workers == 1 else RayExecutor(evaluate, workers, timeout_s)


if __name__ == "__main__":
    raise SystemExit(main())
