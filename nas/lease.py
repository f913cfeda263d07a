"""Lease: one driver a study, wherever it runs. It holds while the driver's beats are seen in the study's database.

No clock is compared with another one, so clocks may jump or differ. A driver that finds an owner looks whether the
owner's beats go on; on the same machine it looks whether its process lives. An owner that was silent for long and comes
back finds its study taken, and stops: what it writes is refused in the same transaction.
"""

from __future__ import annotations

import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nas.errors import RunError, StorageError
from nas.store import Driver, Store, in_words

BEAT_S = 2.0
SILENT_BEATS = 5  # an owner that misses so many is gone


def owner_here(folder: Path) -> dict[str, Any]:
    """Who this process is, as other drivers are told."""
    return {
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "host": platform.node(),
        "namespace": _namespace(),
        "folder": str(folder.resolve()),
    }


def is_dead(owner: Mapping[str, Any]) -> bool:
    """Known for sure only of a process on this machine."""
    return bool(owner["namespace"] == _namespace() and _started(owner["pid"]) != owner["started"])


def _namespace() -> str:
    """Where process ids mean the same: the machine since it was started, and the container in it."""
    boot, pids = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return f"{boot.read_text(encoding='ascii').strip()} {pids.readlink()}" if boot.is_file() else platform.node()


def _started(pid: int) -> float | None:
    """When the process was started, by a clock that does not jump where there is one; None without such a process."""
    if Path("/proc/self/stat").is_file():
        try:
            state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return None
        return None if state == "Z" else float(fields[18])  # starttime, in ticks since the machine was started
    import psutil

    return float(psutil.Process(pid).create_time()) if psutil.pid_exists(pid) else None


@contextmanager
def lease(store: Store, study: str, folder: Path, pause: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """The body is the study's only driver. Raises: RunError that names the other one."""
    mine = Driver(uuid.uuid4().hex, owner_here(folder))
    _acquire(store, study, mine, pause)
    store.token = mine.token
    done = threading.Event()
    heart = threading.Thread(target=_beat, args=(store, study, mine.token, done), daemon=True)
    heart.start()
    try:
        yield
    finally:
        done.set()
        heart.join(BEAT_S)
        store.token = None
        with suppress(StorageError):  # a database that is away: the next driver sees that this one is gone
            store.release(study, mine.token)


def _acquire(store: Store, study: str, mine: Driver, pause: Callable[[float], None]) -> None:
    found = store.driver(study)
    if found is not None and not is_dead(found.owner):
        for _ in range(SILENT_BEATS):
            pause(BEAT_S)
            if store.driver(study) != found:
                break
        else:
            if store.claim(study, mine, instead_of=found):
                return
        raise RunError(_refusal(study, store.driver(study) or found))
    if not store.claim(study, mine, instead_of=found):
        raise RunError(_refusal(study, store.driver(study) or mine))


def _refusal(study: str, owner: Driver) -> str:
    return f"study {study!r} is being searched by {in_words(owner.owner)}; wait for it or stop it"


def _beat(store: Store, study: str, token: str, done: threading.Event) -> None:
    """Until done, or until the study is another's; a database that is away is tried again at the next beat."""
    while not done.wait(BEAT_S):
        with suppress(StorageError):
            if not store.beat(study, token):
                return
