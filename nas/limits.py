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

from nas.records import GIB

SHARE_OF_FREE = 0.9  # of the memory that is free when an evaluation starts
REFUSALS = ("allocate memory", "could not create a primitive", "bad_alloc")  # of torch's allocator, oneDNN, C++


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

    Memory is what the process may add in private writable pages (RLIMIT_DATA, Linux only): what is refused raises
    MemoryError, whatever library asked for it, and nothing was swapped or killed. Time is a signal to the main
    thread, heard between two Python instructions: a single call that never returns is stopped by nobody but an
    executor with processes.
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
    more = limits.memory_bytes or _share_bytes(limits.sharers or os.cpu_count() or 1)
    allowed = _held_bytes() + more
    soft = min([allowed] + [bound for bound in before if bound != resource.RLIM_INFINITY])
    resource.setrlimit(resource.RLIMIT_DATA, (soft, before[1]))
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or any(words in str(error) for words in REFUSALS):
            allowance = f"the {more / GIB:.3g} GiB of memory that it may take"
            raise MemoryError(f"wants more than {allowance}: {error!r}") from error
        raise
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
