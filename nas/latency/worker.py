"""What runs on the device, in a process of its own: one request on stdin, JSON lines on stdout.

Lines: {"kind": "environment", ...}, then for blocks {"kind": "timings", "timings": {key: record}} as each group is
done, for candidates {"kind": "requests", "results": {key: record}}, and at last {"kind": "done"} or
{"kind": "error", "message": ...}. What libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas.latency.request import Request

Emit = Callable[[dict[str, Any]], None]
MOST_REQUEST_BYTES = 2**24
# The allocator keeps what it has and asks for huge pages. Without this, the same convolutional encoder took 9, 13 or
# 20 ms from one process to the next, by whether its activations were returned to the system after each call.
STEADY_ALLOCATOR = {
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "THP_MEM_ALLOC_ENABLE": "1",
}


def serve(request: Request, emit: Emit) -> None:
    """Measures what the request names. Raises: NasError, ProfileError."""
    from hardware_profiles import ProfileError
    from nas.latency.backends import check

    profile = request.profile
    check(request.runtime, request.dtype)
    if not profile.matches_this_machine():
        raise ProfileError(
            f"this machine ({platform.machine()}, {_name()}) is not device {profile.id!r}, so nothing is measured "
            f"on it; correct identity.match of the profile, or the host that its runner names"
        )
    _pin(profile.runner.cpu_mask)
    for runtime in profile.runtimes:
        if runtime.name == request.runtime:
            os.environ.update(runtime.env)
    _measure(request, emit)


def _measure(request: Request, emit: Emit) -> None:
    from nas.latency.context import context_here
    from nas.latency.end_to_end import measure_requests
    from nas.latency.measure import canary_at, measure_blocks

    profile = request.profile
    context = context_here(profile, request.runtime, request.dtype)
    emit(
        {
            "kind": "environment",
            **environment(),
            "runtime_version": context.version,
            "canary_ms": canary_at(context.threads),
        }
    )
    cache_mib = profile.memory.last_level_cache_mib
    if request.blocks:
        measure_blocks(
            request.blocks, context, last_level_cache_mib=cache_mib, seed=request.seed,
            keep=lambda found: emit({"kind": "timings", "timings": {key: asdict(t) for key, t in found.items()}}),
        )  # fmt: skip
    if request.candidates and request.workload is not None:
        found = measure_requests(
            request.candidates, request.workload, context, last_level_cache_mib=cache_mib, rounds=request.rounds,
            sustained_s=request.sustained_s, seed=request.seed,
        )  # fmt: skip
        emit({"kind": "requests", "results": {key: asdict(value) for key, value in found.items()}})
    emit({"kind": "done", "temperature_c": temperature_c(), "load_average": environment()["load_average"]})


def environment() -> dict[str, Any]:
    """Where the numbers come from, as far as the system tells."""
    from importlib.metadata import version

    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "processor": _name(),
        "node": platform.node(),
        "process": os.getpid(),
        "torch": version("torch"),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "allocator": {name: os.environ.get(name) for name in STEADY_ALLOCATOR},
        "governor": governor.read_text(encoding="ascii").strip() if governor.is_file() else None,
        "temperature_c": temperature_c(),
    }


def temperature_c() -> float | None:
    """Of the hottest zone; None where the system does not tell."""
    found = []
    for zone in Path("/sys/class/thermal").glob("thermal_zone*/temp"):
        try:
            found.append(int(zone.read_text(encoding="ascii")) / 1000)
        except (OSError, ValueError):
            continue
    return max(found, default=None)


def _name() -> str:
    from hardware_profiles.detect import processor_name

    return processor_name()


def _pin(mask: str | None) -> None:
    """Only the processors of the mask, as `taskset` reads it."""
    if mask is not None and hasattr(os, "sched_setaffinity"):
        bits = int(mask, 16)
        os.sched_setaffinity(0, {index for index in range(bits.bit_length()) if bits >> index & 1})


def main() -> int:
    """One request; exit code 1 where it failed, with the reason as the last line."""
    from hardware_profiles import ProfileError
    from nas.errors import NasError

    if not os.environ.keys() >= STEADY_ALLOCATOR.keys():  # read when a process starts, so it starts again
        os.execve(sys.executable, [sys.executable, "-m", __spec__.name], {**STEADY_ALLOCATOR, **os.environ})
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not come between the lines

    def emit(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message, allow_nan=False) + "\n")
        answers.flush()

    try:
        request = Request.from_json(sys.stdin.buffer.read(MOST_REQUEST_BYTES).decode())
        os.environ["OMP_NUM_THREADS"] = str(request.profile.measuring_threads)  # before torch is imported
        serve(request, emit)
    except ModuleNotFoundError as error:
        emit(
            {
                "kind": "error",
                "message": f"the device lacks the Python package {error.name!r}; install it there with pip",
            }
        )
        return 1
    except (NasError, ProfileError, ValueError, RuntimeError, MemoryError) as error:
        emit({"kind": "error", "message": f"{' '.join(str(error).split()) or type(error).__name__}"})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
