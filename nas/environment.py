"""Where a run took place: enough to say why two runs differ."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

PACKAGES = ("nas", "cli", "proxies", "search_spaces", "hardware_profiles")
LIBRARIES = ("nas-multimodal", "torch", "transformers", "timm", "optuna", "ray", "sqlalchemy", "numpy")
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "LD_PRELOAD", "PYTHONHASHSEED")


def environment() -> dict[str, Any]:
    """Code, versions, processor, threads and load."""
    from hardware_profiles.detect import processor_name

    return {
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "code": code_digest(),
        "commit": commit(),
        "packages": {name: _version(name) for name in LIBRARIES},
        "installed": {each.name: each.version for each in sorted(distributions(), key=lambda each: each.name.lower())},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def code_digest() -> str:
    """Of this program's own files as they are now, whether committed or installed from a wheel."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        folder = Path(__file__).parents[1] / package
        for file in sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".yaml", ".json"}):
            digest.update(f"{package}/{file.relative_to(folder).as_posix()}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def commit() -> str | None:
    """Of the checkout that runs, marked where files were changed since; None elsewhere."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        told = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip()
