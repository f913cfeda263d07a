"""A conversation with a process: it gets bytes, gives lines, and never outlives the conversation."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from nas.errors import RefusalError, RunnerError
from nas.latency.runner_messages import MOST_LINE_BYTES, plain

SILENCE_S = 600.0  # a device that says nothing for so long is taken for dead; a working one speaks twice a minute
LAST_WORDS = 20  # lines of stderr that are kept to say why a process ended


@dataclass(frozen=True)
class Conversation:
    """How a device is spoken to. Stdin stays open as its lifeline (`nas.latency.lifeline`)."""

    command: Sequence[str]
    where: str
    mend: str = "try again"  # the next step when it does not answer at all
    silence_s: float = SILENCE_S

    def lines(self, sent: bytes) -> Iterator[str]:
        """Lines of stdout as they come. Raises: RunnerError where it cannot start, fails, or falls silent."""
        process = self._start()
        assert process.stdin and process.stdout and process.stderr
        heard: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        said: deque[bytes | None] = deque(maxlen=LAST_WORDS)
        threads = [
            threading.Thread(target=_send, args=(process.stdin, sent), daemon=True),
            threading.Thread(target=_read, args=(process.stdout, heard.put), daemon=True),
            threading.Thread(target=_read, args=(process.stderr, said.append), daemon=True),
        ]
        for thread in threads:
            thread.start()
        count = 0
        try:
            while (line := heard.get(timeout=self.silence_s)) is not None:
                count += 1
                if len(line) >= MOST_LINE_BYTES:
                    raise RunnerError(f"{self.where} answered with a line over {MOST_LINE_BYTES} bytes; {self.mend}")
                yield line.decode(errors="replace")
            code = process.wait(self.silence_s)
            threads[2].join(timeout=5)
            if code != 0:
                raise RunnerError(self._why(count, code, [line for line in said if line and line.strip()]))
        except (queue.Empty, subprocess.TimeoutExpired):
            raise RunnerError(
                f"{self.where} has said nothing for {self.silence_s:g} s and is taken for dead; try again"
            ) from None
        finally:
            _kill(process)
            for thread in threads:
                thread.join(timeout=5)
            for stream in (process.stdin, process.stdout, process.stderr):
                _close(stream)

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            program = self.command[0]
            raise RefusalError(
                f"cannot start {program!r} to reach {self.where}: {error.strerror}; install it"
            ) from error

    def _why(self, count: int, code: int, said: list[bytes]) -> str:
        reason = plain(said[-1].decode(errors="replace")) if said else f"exit code {code}"
        if count:
            return f"{self.where} stopped before it was done: {reason}; what was finished is kept, try again"
        return f"{self.where} gave no answer: {reason}; {self.mend}"


def _send(stream: IO[bytes], sent: bytes) -> None:
    try:
        stream.write(sent)
        stream.flush()
    except OSError:
        return  # the process ended early; its exit code and stderr say why


def _close(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except OSError:
        return  # what was not sent has no reader left


def _read(stream: IO[bytes], take: Callable[[bytes | None], object]) -> None:
    while line := stream.readline(MOST_LINE_BYTES):
        take(line)
    take(None)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With all that it started; a device at the far end sees its lifeline end."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except OSError:
            process.kill()
        process.wait()
