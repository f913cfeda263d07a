"""Whoever asked for a measurement is killed with SIGKILL, and what measures ends by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from runner_requests import EVERY_BLOCK, ends, here

from nas.latency.request import Request
from nas.latency.runners import AdbRunner, LocalRunner

# Measures for hours if nobody stops it; says which process does.
ASKS = """
import sys
from nas.hosts import Phone
from nas.latency.request import Request
from nas.latency.runners import AdbRunner, LocalRunner
request = Request.from_json(sys.stdin.readline())
phone = Phone(serial="ABC123", python=sys.executable)
runner = LocalRunner() if len(sys.argv) == 1 else AdbRunner(phone, "pixel", sys.argv[1])
for message in runner.run(request):
    print(message["process"] if message["kind"] == "environment" else "", flush=True)
"""
# Starts another process as a compiler would, says which, and hangs.
HAS_A_CHILD = """
import subprocess, sys, time
from nas.latency.lifeline import end_with_stdin
end_with_stdin()
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("runner", [LocalRunner, AdbRunner])
def test_a_worker_ends_when_whoever_asked_is_killed(runner: type, tmp_path: Path) -> None:
    adb = tmp_path / "adb"
    adb.write_text('#!/bin/sh\nshift 4\nexec sh -c "$1"\n', encoding="utf-8")
    adb.chmod(0o700)
    command = [sys.executable, "-c", ASKS, *([str(adb)] if runner is AdbRunner else [])]
    request = Request(here(), blocks=EVERY_BLOCK, passes=10_000)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asks:
        assert asks.stdin and asks.stdout
        asks.stdin.write(request.to_json() + "\n")
        asks.stdin.flush()
        worker = int(asks.stdout.readline())
        asks.stdout.readline()  # it is at work
        os.kill(asks.pid, signal.SIGKILL)
    assert ends(worker)


def test_what_a_worker_started_ends_with_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HAS_A_CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as worker:
        assert worker.stdin and worker.stdout
        child = int(worker.stdout.readline())
        worker.stdin.close()
        assert worker.wait(timeout=20) == -signal.SIGKILL
    assert ends(child)
