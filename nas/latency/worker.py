"""What runs on the device, in a process of its own: one request as a line on stdin, JSON lines on stdout.

Stdin stays open as its lifeline: when that ends, whoever asked is gone, and so is this process.

Lines: {"kind": "environment", ...}, then for blocks {"kind": "timings", "timings": {key: record}} as each group is
done, for candidates {"kind": "requests", "results": {key: record}}, for speeds {"kind": "speeds", "calibration":
record}, and at last {"kind": "done", ...} or
{"kind": "error", "message": ...}; {"kind": "progress"} in between says that the device is at work. What libraries
print goes to stderr. Imports are late, so that a device that lacks a package can say so.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.latency.blocks import BlockTiming
    from nas.latency.request import Request

Emit = Callable[[dict[str, Any]], None]
Pause = Callable[[float], None]
MOST_REQUEST_BYTES = 2**24
QUIET_S = 30.0  # a device at work speaks this often, so that a slow one is not taken for dead
PIP_NAMES = {"yaml": "PyYAML", "PIL": "pillow"}  # where they differ from the name that is imported
# The allocator keeps what it has and asks for huge pages. Without this, the same convolutional encoder took 9, 13 or
# 20 ms from one process to the next, by whether its activations were returned to the system after each call.
STEADY_ALLOCATOR = {
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "THP_MEM_ALLOC_ENABLE": "1",
}


def serve(request: Request, emit: Emit, pause: Pause = time.sleep) -> None:
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
    if runtime := profile.runtime(request.runtime):
        os.environ.update(runtime.env)
    _measure(request, emit, pause)


def _measure(request: Request, emit: Emit, pause: Pause) -> None:
    from hardware_profiles import ProfileError
    from nas.latency.backends import torch_threads
    from nas.latency.context import context_here
    from nas.latency.end_to_end import measure_requests
    from nas.latency.measure import canary_at, involuntary_switches, measure_blocks
    from nas.latency.speeds import measure_speeds

    profile = request.profile
    context = context_here(profile, request.runtime, request.dtype)
    asked = profile.runtime(request.runtime)
    if asked and asked.version not in (None, context.version):
        raise ProfileError(
            f"{request.runtime} here is {context.version}, but runtimes of device {profile.id!r} say {asked.version}; "
            f"install that version, or change the profile"
        )
    emit(
        {
            "kind": "environment",
            **environment(),
            "runtime_version": context.version,
            "canary_ms": canary_at(torch_threads(context.runtime, context.threads)),
        }
    )

    def keep(found: dict[str, BlockTiming]) -> None:
        emit({"kind": "timings", "timings": {key: asdict(timing) for key, timing in found.items()}})
        pause(profile.runner.cooldown_s)

    if request.speeds:
        started = temperature_c()
        speeds = measure_speeds(context.threads).model_copy(update={"temperature_c": (started, temperature_c())})
        emit({"kind": "speeds", "calibration": speeds.model_dump(mode="json")})
    settings: dict[str, Any] = {
        "last_level_cache_mib": profile.memory.last_level_cache_mib, "protocol": profile.protocol,
        "clock": SpeakingClock(emit), "seed": request.seed, "keep": keep,
    }  # fmt: skip
    if request.candidates and request.workload is not None:
        found = measure_requests(
            request.candidates, request.workload, context, blocks=request.blocks, rounds=request.rounds,
            sustained_s=request.sustained_s, **settings,
        )  # fmt: skip
        emit({"kind": "requests", "results": {key: asdict(value) for key, value in found.items()}})
    elif request.blocks:
        measure_blocks(request.blocks, context, passes=request.passes, **settings)
    emit(
        {
            "kind": "done",
            "temperature_c": temperature_c(),
            "load_average": environment()["load_average"],
            "involuntary_switches": involuntary_switches(),
        }
    )


class SpeakingClock:
    """The measurement's clock in s; says `progress` now and then. The word costs microseconds twice a minute."""

    def __init__(self, emit: Emit, clock: Callable[[], float] = time.perf_counter, quiet_s: float = QUIET_S) -> None:
        self.emit, self.clock, self.quiet_s = emit, clock, quiet_s
        self.spoke = clock()

    def __call__(self) -> float:
        now = self.clock()
        if now - self.spoke > self.quiet_s:
            self.spoke = now
            self.emit({"kind": "progress"})
        return now


def environment() -> dict[str, Any]:
    """Where the numbers come from, as far as the system tells."""
    from importlib.metadata import version

    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "processor": _name(),
        "node": os.environ.get("NAS_NODE") or platform.node(),
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
    from nas.errors import RunnerError

    if mask is None or not hasattr(os, "sched_setaffinity"):
        return
    bits = int(mask, 16)
    try:
        os.sched_setaffinity(0, {index for index in range(bits.bit_length()) if bits >> index & 1})
    except OSError:
        raise RunnerError(
            f"cpu_mask {mask!r} names none of the {os.cpu_count()} processors; correct runner.cpu_mask of the profile"
        ) from None


def main() -> int:
    """One request; exit code 1 where it failed, with the reason as the last line."""
    if not os.environ.keys() >= STEADY_ALLOCATOR.keys():  # read when a process starts, so it starts again
        os.execve(sys.executable, [sys.executable, "-m", __spec__.name], {**STEADY_ALLOCATOR, **os.environ})
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not come between the lines

    def emit(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message, allow_nan=False) + "\n")
        answers.flush()

    try:
        _answer(sys.stdin.buffer.readline(MOST_REQUEST_BYTES + 1), emit)
    except Exception as error:  # the edge of the process: the cause goes to stderr, its one line to whoever asked
        traceback.print_exc()
        emit({"kind": "error", "message": _reason(error), "lasting": _is_lasting(error)})
        return 1
    return 0


def _answer(asked: bytes, emit: Emit) -> None:
    from nas.latency.lifeline import end_with_stdin
    from nas.latency.request import Request

    if len(asked) > MOST_REQUEST_BYTES:
        raise ValueError(f"a request may have {MOST_REQUEST_BYTES} bytes, but this one is longer; ask for less at once")
    end_with_stdin()
    request = Request.from_json(asked.decode())
    os.environ["OMP_NUM_THREADS"] = str(request.profile.threads(request.runtime))  # before torch is imported
    serve(request, emit)


def _is_lasting(error: Exception) -> bool:
    """A mistake, or a package that is not there: the same request will fail again."""
    from_here = type(error).__module__.split(".")[0] in ("nas", "hardware_profiles", "search_spaces")
    return from_here or isinstance(error, ModuleNotFoundError)


def _reason(error: Exception) -> str:
    """One line; a bug is told from a mistake by its type."""
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "?").split(".")[0]
        pip_name = PIP_NAMES.get(name, name)
        return f"it lacks the Python package {name!r}; run there: {sys.executable} -m pip install {pip_name}"
    message = " ".join(str(error).split())
    return message if _is_lasting(error) else f"{type(error).__name__}: {message}"


if __name__ == "__main__":
    sys.exit(main())
