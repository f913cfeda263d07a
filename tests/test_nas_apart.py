"""A trial in a process of its own may hang or die; the driver goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import search_spaces
from nas.apart import ProcessExecutor
from nas.errors import RunnerError
from nas.limits import Limits
from nas.run_folder import RunFolder
from nas.search.evaluate import Outcome, Task, evaluate

TASK = Task(search_spaces.load("micro").candidates[0], 0, ("params", "synflow"), Limits(timeout_s=300))


def ask(executor: ProcessExecutor, task: Task = TASK) -> Outcome:
    executor.submit(task)
    asked, outcome = executor.next_outcome()
    assert asked is task
    return outcome


def test_scores_are_those_of_this_process_and_reasons_come_back() -> None:
    executor = ProcessExecutor(timeout_s=300)
    try:
        found = ask(executor)
        failed = ask(executor, replace(TASK, proxies=("no-such-proxy",)))
    finally:
        executor.close()
    here = {name: score.value for name, score in evaluate(TASK).proxies.items()}
    assert {name: score.value for name, score in found.proxies.items()} == here
    assert "no proxy named" in str(failed.error) and "Traceback" in str(failed.traceback)


def test_one_that_hangs_is_stopped_and_the_next_has_a_new_process() -> None:
    executor = ProcessExecutor(timeout_s=60)
    try:
        assert ask(executor).error is None
        assert executor.process is not None
        os.kill(executor.process.pid, signal.SIGSTOP)  # like a call that never returns: it hears nothing
        executor.patience_s = 0.2
        assert ask(executor).error == "TimeoutError: took longer than 0.2 s, and its process was stopped"
        executor.patience_s = 60
        assert ask(executor).error is None
    finally:
        executor.close()


def test_one_that_dies_is_tried_again_and_costs_its_candidate_only_where_it_dies_again() -> None:
    dies = [sys.executable, "-X", "faulthandler", "-c", "print('ready', flush=True); input(); import os; os.abort()"]
    executor = ProcessExecutor(timeout_s=60, command=dies)
    try:
        outcome = ask(executor)
        assert outcome.error == "its process died 2 times, by SIGABRT"
        assert "Fatal Python error: Aborted" in str(outcome.traceback)
    finally:
        executor.close()


def test_one_that_cannot_start_is_one_line() -> None:
    executor = ProcessExecutor(timeout_s=60, command=[sys.executable, "-c", "import no_such_module"])
    with pytest.raises(RunnerError, match="cannot start: ModuleNotFoundError: No module named 'no_such_module'"):
        ask(executor)
    executor.close()


GIVES_UP = """
import threading, search_spaces
from nas.execution import SerialExecutor
from nas.limits import Limits
from nas.search.evaluate import Task

executor = SerialExecutor(lambda task: threading.Event().wait(), timeout_s=0.1)
executor.submit(Task(search_spaces.load("micro").candidates[0], 0, (), Limits(300)))
executor.next_outcome()
"""


def test_in_process_a_call_that_never_returns_ends_the_search_in_a_line() -> None:
    done = subprocess.run([sys.executable, "-c", GIVES_UP], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "has not returned after 0.1 s" in done.stderr


def test_a_session_that_broke_off_in_its_trials_is_known_to_the_next_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.trials() as broke_off:
        assert not broke_off
        with RunFolder(tmp_path).trials() as found:  # as the next session would, had this one been killed here
            assert found
    with folder.trials() as broke_off:
        assert not broke_off
