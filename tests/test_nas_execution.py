"""Ray actors do the work; one that dies costs its own task and is replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import search_spaces
from nas.errors import RunnerError
from nas.execution import SerialExecutor
from nas.limits import Limits
from nas.ray_workers import HEAD_PATIENCE_S, RayExecutor
from nas.search.evaluate import Outcome, Task, evaluate

SPACE = search_spaces.load("micro")
LIMITS = Limits(timeout_s=300)
TASKS = [Task(candidate, seed=0, proxies=("params",), limits=LIMITS) for candidate in SPACE.candidates[:4]]


def failing_on_the_second(accident: str) -> Callable[[Task], Outcome]:
    """A nested function, so that Ray ships its code: workers cannot import a test module."""
    second = TASKS[1].candidate.key

    def run(task: Task) -> Outcome:
        if task.candidate.key == second and accident == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if task.candidate.key == second:
            time.sleep(600)
        return Outcome(task.candidate.key, {}, 0.0)

    return run


def work_off(executor: RayExecutor) -> dict[str, Outcome]:
    waiting, found = list(TASKS), {}
    while waiting or executor.busy:
        while waiting and executor.has_room:
            executor.submit(waiting.pop(0))
        task, outcome = executor.next_outcome()
        found[task.candidate.key] = outcome
    return found


def test_one_worker_runs_in_this_process_and_keeps_a_failure_s_reason() -> None:
    executor = SerialExecutor(evaluate)
    executor.submit(Task(TASKS[0].candidate, seed=0, proxies=("no-such-proxy",), limits=LIMITS))
    assert not executor.has_room
    _, outcome = executor.next_outcome()
    assert outcome.error is not None
    assert "no proxy named" in outcome.error
    assert outcome.traceback is not None


@pytest.mark.filterwarnings("ignore")  # of Ray's own modules
@pytest.mark.parametrize(
    ("accident", "reason", "timeout_s"), [("dies", "died 3 times", 300.0), ("hangs", "took longer", 6.0)]
)
def test_a_dead_or_hanging_worker_costs_its_own_task_only(accident: str, reason: str, timeout_s: float) -> None:
    executor = RayExecutor(failing_on_the_second(accident), workers=2, timeout_s=timeout_s)
    try:
        found = work_off(executor)
    finally:
        executor.close()
    assert set(found) == {task.candidate.key for task in TASKS}
    failed = {key: outcome.error for key, outcome in found.items() if outcome.error}
    assert list(failed) == [TASKS[1].candidate.key]
    assert reason in str(failed[TASKS[1].candidate.key])


class DiesOnArrival:
    """An evaluation that kills the first worker that it is sent to, while that starts."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        def arrive(mark: str) -> Callable[[Task], Outcome]:
            if not os.path.exists(mark):  # noqa: PTH110  # what is nested is shipped, what is imported here is not there
                os.mkdir(mark)  # noqa: PTH102
                os.kill(os.getpid(), signal.SIGKILL)
            return lambda task: Outcome(task.candidate.key, {}, 0.0)

        return arrive, (self.mark,)


@pytest.mark.filterwarnings("ignore")  # of Ray's own modules
def test_a_worker_that_dies_while_it_starts_is_replaced(tmp_path: Path) -> None:
    executor = RayExecutor(DiesOnArrival(tmp_path / "mark"), workers=1, timeout_s=300)  # type: ignore[arg-type]
    try:
        executor.submit(TASKS[0])
        assert executor.next_outcome()[1].error is None
    finally:
        executor.close()
    assert (tmp_path / "mark").is_dir()


@pytest.mark.filterwarnings("ignore")  # of Ray's own modules
def test_a_cluster_whose_head_was_killed_is_given_up_in_one_line() -> None:
    executor = RayExecutor(failing_on_the_second("hangs"), workers=1, timeout_s=300)
    try:
        executor.submit(TASKS[1])
        for child in psutil.Process().children(recursive=True):
            child.kill()
        executor.unreached_since = time.monotonic() - 2 * HEAD_PATIENCE_S
        with pytest.raises(RunnerError, match="the Ray cluster is gone"):
            executor.next_outcome()
    finally:
        executor.close()


@pytest.mark.filterwarnings("ignore")  # of Ray's own modules
def test_a_stranger_is_not_let_into_the_cluster_of_a_search() -> None:
    """Another user's process of the same machine could reach it."""
    executor = RayExecutor(evaluate, workers=1, timeout_s=300)
    try:
        address = executor.ray.get_runtime_context().gcs_address
        code = f"import ray; ray.init(address={address!r}); print('let in')"
        logins = [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ab" * 32}]
        local = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # else Ray asks at the outward address, where nobody listens
        strangers = [
            subprocess.Popen(
                [sys.executable, "-c", code], env={**os.environ, **local, **login}, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, text=True,
            )
            for login in logins
        ]  # fmt: skip
        said = [stranger.communicate()[0] for stranger in strangers]
        executor.submit(TASKS[0])
        assert executor.next_outcome()[1].error is None
    finally:
        executor.close()
    assert said == ["", ""] and all(stranger.returncode for stranger in strangers)
    assert "RAY_AUTH_TOKEN" not in os.environ


LISTENERS = """
import ipaddress, psutil
from nas.ray_session import started

ray = started(1)
own = [psutil.Process(), *psutil.Process().children(recursive=True)]
found = [one.laddr.ip for process in own for one in process.net_connections() if one.status == psutil.CONN_LISTEN]
assert len(found) > 3, found
for ip in map(ipaddress.ip_address, found):
    assert ip.is_loopback or ip.ipv4_mapped.is_loopback, ip
ray.shutdown()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems list a process's sockets to its owner only")
def test_the_cluster_of_a_search_listens_on_loopback_only() -> None:
    subprocess.run([sys.executable, "-c", LISTENERS], check=True)
