"""Ray: a cluster of our own on loopback, or a connection to one that runs already."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from nas.errors import RunnerError


def started(workers: int) -> Any:
    """Ray with a cluster of its own on loopback, which ends with this process."""
    _quietly()
    import ray

    if not ray.is_initialized():
        ray.init(
            address="local",  # not the cluster that RAY_ADDRESS may name
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=200 * 2**20,
            _node_ip_address="127.0.0.1",
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // workers))}},
        )
    return ray


def _quietly() -> None:
    """Else Ray writes a token into the user's home, and calls home itself."""
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
            _reach(address)
            ray.init(address=address or "auto", log_to_driver=False, runtime_env=runtime_env)
        except (OSError, RuntimeError, ValueError) as error:
            raise RunnerError(
                f"no Ray cluster answers at {address or 'this machine'} ({' '.join(str(error).split())[:120]}); "
                f"start one: ray start --head"
            ) from error
    return ray


def _reach(address: str | None) -> None:
    """Raises: OSError at once, where Ray itself would try for over ten minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "://" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()
