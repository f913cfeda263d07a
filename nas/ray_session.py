"""Ray: a cluster of our own, or a connection to one that runs already."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from nas.errors import ConfigError, RunnerError


def started(workers: int) -> Any:
    """Ray with a cluster of its own, which ends with this process, listens on loopback only and asks for a token.

    Ray takes a local address it is given for the machine's outward one, and then listens on every interface; that it
    is to be a cluster of one machine it is told by the variable for the systems where it knows no other.
    """
    with _only_ours():
        import ray

        if not ray.is_initialized():
            try:
                ray.init(
                    address="local",  # not one that runs on this machine already
                    num_cpus=workers,
                    include_dashboard=False,
                    log_to_driver=False,
                    object_store_memory=200 * 2**20,
                    runtime_env={"env_vars": {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // workers))}},
                )
            except Exception as error:  # Ray raises it bare where its own processes died on the way
                ray.shutdown()
                raise RunnerError(f"Ray did not start ({' '.join(str(error).split())[:160]}); try again") from error
    return ray


@contextmanager
def _only_ours() -> Iterator[None]:
    """Environment of a cluster that is ours alone; processes that are started later do not see it."""
    ours = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _token(),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@cache
def _token() -> str:
    """One for the life of this process: Ray reads it once."""
    return secrets.token_hex(32)


def _quietly() -> None:
    """The user's cluster says how to log in (RAY_AUTH_MODE); else Ray writes a token into the user's home."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def own_code() -> dict[str, Any]:
    """A runtime environment with this program's packages: nodes need its dependencies, but no checkout."""
    names = ("nas", "proxies", "search_spaces", "hardware_profiles")
    folders = [Path(str(import_module(name).__file__)).parent for name in names]
    return {"py_modules": [str(folder) for folder in folders], "excludes": ["__pycache__"]}


def connected(address: str | None, runtime_env: Mapping[str, Any] | None = None) -> Any:
    """Ray, connected to a cluster that runs already. Raises: RunnerError."""
    _quietly()
    import ray

    if not ray.is_initialized():
        try:
            reach(address)
            ray.init(address=address or "auto", log_to_driver=False, runtime_env=runtime_env)
        except (OSError, RuntimeError, ValueError) as error:
            raise _silent(address, error) from error
    return ray


def check(address: str) -> None:
    """Before Ray is loaded. Raises: ConfigError, RunnerError."""
    if not re.fullmatch(r"auto|.+://.+|.+:\d+", address):
        raise ConfigError(f"a cluster must be HOST:PORT (of `ray start --head`), but got {address!r}")
    try:
        reach(address)
    except OSError as error:
        raise _silent(address, error) from error


def _silent(address: str | None, error: Exception) -> RunnerError:
    reason = " ".join(str(error).split())[:120]
    return RunnerError(f"no Ray cluster answers at {address or 'this machine'} ({reason}); start one: ray start --head")


def reach(address: str | None) -> None:
    """Raises: OSError at once, where Ray itself would try for over ten minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "://" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()
