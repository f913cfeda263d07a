"""ProcessExecutor: evaluations in one process of their own, which is killed when it hangs and replaced when it dies.

For searches with one worker: a call into native code that never returns, or that takes its process with it, costs its
candidate and not the driver.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from nas.errors import RunnerError
from nas.execution import SerialExecutor
from nas.limits import Limits
from nas.records import ProxyScore
from nas.search.evaluate import Outcome, Task, evaluate
from search_spaces import Candidate

COMMAND = (sys.executable, "-X", "faulthandler", "-m", "nas.apart")
READY = "ready"
MOST_DEATHS = 2  # at one candidate; one may be an accident


class ProcessExecutor(SerialExecutor):
    """One task at a time, in a process that starts with the first and imports torch once."""

    def __init__(self, timeout_s: float, command: Sequence[str] = COMMAND) -> None:
        super().__init__(self._ask)
        self.patience_s, self.command = timeout_s, command
        self.process: subprocess.Popen[str] | None = None

    def close(self) -> None:
        super().close()
        self._stop()

    def _ask(self, task: Task) -> Outcome:
        """Never raises for a failing candidate, whatever becomes of the process."""
        start, asked = time.monotonic(), json.dumps(asdict(task) | {"candidate": task.candidate.to_dict()})
        for _ in range(MOST_DEATHS):
            process = self._started()
            late = threading.Timer(self.patience_s, process.kill)
            late.start()
            line = _answer(process, asked)
            in_time = late.is_alive()
            late.cancel()
            if line:
                return _outcome(json.loads(line))
            code, words = self._stop()
            if not in_time:
                reason = f"TimeoutError: took longer than {self.patience_s:g} s, and its process was stopped"
                return Outcome(task.candidate.key, {}, time.monotonic() - start, reason)
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        reason = f"its process died {MOST_DEATHS} times, {how}"
        return Outcome(task.candidate.key, {}, time.monotonic() - start, reason, words)

    def _started(self) -> subprocess.Popen[str]:
        if self.process is None:
            self.words = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - see _stop
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.words, text=True
            )
            assert self.process.stdout
            if self.process.stdout.readline().strip() != READY:
                last = (self._stop()[1].strip().splitlines() or ["no reason given"])[-1]
                raise RunnerError(f"a process for trials cannot start: {last}; what is finished is kept")
        return self.process

    def _stop(self) -> tuple[int, str]:
        """Exit code and last words of the process, if there was one."""
        if self.process is None:
            return 0, ""
        with self.process as process, self.words as words:
            process.kill()
            code = process.wait()
            words.seek(0)
            said = words.read()
        self.process = None
        return code, said


def _answer(process: subprocess.Popen[str], asked: str) -> str:
    """A line, or none where the process is gone."""
    assert process.stdin and process.stdout
    try:
        process.stdin.write(asked + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return ""
    return process.stdout.readline()


def _task(fields: dict[str, Any]) -> Task:
    candidate, limits = Candidate.model_validate(fields["candidate"]), Limits(**fields["limits"])
    return Task(candidate, fields["seed"], tuple(fields["proxies"]), limits)


def _outcome(fields: dict[str, Any]) -> Outcome:
    return Outcome(**fields | {"proxies": {name: ProxyScore(**score) for name, score in fields["proxies"].items()}})


def main() -> None:
    """Tasks come as lines of JSON, outcomes go as such; what libraries print goes to stderr."""
    import torch

    import nas.model  # noqa: F401  # imported before the clock of the first task runs

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which may let this trial end
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    print(READY, file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(evaluate(_task(json.loads(line))))), file=answers, flush=True)


if __name__ == "__main__":
    main()
