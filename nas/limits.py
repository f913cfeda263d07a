"""Limits of one evaluation: so much memory, so much time. A candidate that wants more fails; the process lives on."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

SHARE_OF_FREE = 0.9  # of the memory that is free when an evaluation starts


@dataclass(frozen=True, slots=True)
class Limits:
    """What one evaluation may take; `memory_bytes` None = its share of what is free where it runs."""

    timeout_s: float
    memory_bytes: int | None = None
    sharers: int | None = None  # evaluations at a time on its machine; None = one a processor


class _ExpiredError(BaseException):
    """No Exception: whoever keeps going after errors, like the scoring of proxies, must not catch it."""


@contextmanager
def within(limits: Limits) -> Iterator[None]:
    """Holds this process to the limits while the body runs.

    Memory is what the process may add in private writable pages (RLIMIT_DATA, Linux only): torch raises RuntimeError,
    Python MemoryError, and nothing was swapped or killed. Time is a signal to the main thread, heard between two
    Python instructions: a single call that never returns is stopped by nobody but a Ray executor.
    """
    with _memory(limits), _time(limits.timeout_s):
        yield


@contextmanager
def _memory(limits: Limits) -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = _held_bytes() + (limits.memory_bytes or _share_bytes(limits.sharers or os.cpu_count() or 1))
    soft = min([allowed] + [bound for bound in before if bound != resource.RLIM_INFINITY])
    resource.setrlimit(resource.RLIMIT_DATA, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _held_bytes() -> int:
    """Private writable pages of this process now (data and stack)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * os.sysconf("SC_PAGE_SIZE")


def _share_bytes(sharers: int) -> int:
    """Free memory of the machine, or of the control group that this process is held in, for one of `sharers`."""
    import psutil

    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        most = int((group / "memory.max").read_text(encoding="ascii"))
        free = min(free, most - int((group / "memory.current").read_text(encoding="ascii")))
    except (OSError, ValueError):  # no group, or one without a bound
        pass
    return max(1, int(free * SHARE_OF_FREE) // sharers)


@contextmanager
def _time(timeout_s: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def expire(number: int, frame: FrameType | None) -> None:
        raise _ExpiredError

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield
    except _ExpiredError as error:
        raise TimeoutError(f"took longer than {timeout_s:g} s") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
