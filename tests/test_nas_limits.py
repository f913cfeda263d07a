"""One candidate can take neither the machine's memory nor all of its time."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

import search_spaces
from nas.limits import Limits, within
from nas.search.evaluate import Task, evaluate

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")


@linux
def test_more_memory_than_allowed_is_refused_and_then_there_again() -> None:
    """In a process of its own: one that has freed a large heap fills it again without asking for more memory."""
    subprocess.run([sys.executable, "-c", MEMORY_CLAIMS], check=True)


MEMORY_CLAIMS = """
import pytest, torch
from nas.limits import Limits, within

MIB = 2**20
limits = Limits(timeout_s=60, memory_bytes=128 * MIB)
wanted = r"more than the 0\\.125 GiB of memory that it may take"
with pytest.raises(MemoryError, match=wanted), within(limits):
    torch.empty(256 * MIB, dtype=torch.uint8)
with pytest.raises(MemoryError, match=wanted), within(limits):
    bytearray(256 * MIB)
with pytest.raises(RuntimeError, match="shape"), within(limits):
    torch.zeros(2).reshape(3)
with within(limits):
    assert len(bytearray(32 * MIB)) == 32 * MIB
assert len(bytearray(256 * MIB)) == 256 * MIB
"""


def test_a_body_that_takes_too_long_is_stopped_where_it_is() -> None:
    with pytest.raises(TimeoutError, match=r"longer than 0\.05 s") as stopped, within(Limits(timeout_s=0.05)):
        spin()
    assert stopped.traceback[-1].name == "within" or stopped.value.__cause__ is not None


def spin() -> None:
    """Goes on after every error, as the scoring of proxies does."""
    while True:
        try:
            sum(range(1000))
        except Exception:
            continue


def test_beside_the_main_thread_only_memory_is_limited() -> None:
    found: list[int] = []

    def work() -> None:
        with within(Limits(timeout_s=1e-9)):
            found.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [1]


def test_a_candidate_that_takes_too_long_fails_with_reason_and_trace() -> None:
    outcome = evaluate(task(Limits(timeout_s=1e-4)))
    assert outcome.error == "TimeoutError: took longer than 0.0001 s"
    assert "Traceback" in str(outcome.traceback)


def test_a_candidate_without_a_single_score_has_failed() -> None:
    outcome = evaluate(task(Limits(timeout_s=60), proxies=("no-such-proxy",)))
    assert "no proxy named" in str(outcome.error)


def task(limits: Limits, proxies: tuple[str, ...] = ("params",)) -> Task:
    largest = max(search_spaces.load("micro").candidates, key=lambda one: (one.lm_depth, one.resolution, one.key))
    return Task(largest, seed=0, proxies=proxies, limits=limits)
