"""Runners: bring a request to a device and its answers back, line by line, so that nothing finished is lost.

`local` is a fresh process here; `ssh` and `adb` send the program's own Python code along with the request, so that the
device needs Python with torch, transformers and timm, but no checkout; `ray` is in `nas.execution`. One request at a
time: a measurement owns its device.
"""

from __future__ import annotations

import io
import json
import math
import queue
import shlex
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from hardware_profiles import HardwareProfile, ProfileError
from nas.errors import RunnerError
from nas.hosts import Host, Phone, host, phone, ray_address
from nas.latency.request import Request

SILENCE_S = 600.0  # a device that says nothing for so long is taken for dead
KINDS = frozenset({"environment", "timings", "requests", "error", "done"})
PACKAGES = ("nas", "search_spaces", "hardware_profiles", "proxies")
SHIPPED_SUFFIXES = frozenset({".py", ".yaml", ".json", ".csv"})

Message = dict[str, Any]

# Reads the length of a tar archive, the archive and the request from stdin; runs the worker in a folder of its own.
BOOTSTRAP = """
import io, os, subprocess, sys, tarfile, tempfile
size = int(sys.stdin.buffer.readline())
packed = io.BytesIO(sys.stdin.buffer.read(size))
with tempfile.TemporaryDirectory(prefix="nas-") as folder:
    with tarfile.open(fileobj=packed) as archive:
        archive.extractall(folder, filter="data")
    request = sys.stdin.buffer.read()
    environment = dict(os.environ, PYTHONPATH=folder)
    done = subprocess.run([sys.executable, "-m", "nas.latency.worker"], input=request, cwd=folder, env=environment)
sys.exit(done.returncode)
"""


class Runner(Protocol):
    """Takes a request to a device."""

    def run(self, request: Request) -> Iterator[Message]:
        """Messages as they come, the last one `done`. Raises: RunnerError."""


class LocalRunner:
    """A fresh process on this machine."""

    def run(self, request: Request) -> Iterator[Message]:
        command = [sys.executable, "-m", "nas.latency.worker"]
        return converse(command, request.to_json().encode(), "this machine")


class SshRunner:
    """A fresh process on a host that `ssh` reaches without a password."""

    def __init__(self, target: Host, name: str, silence_s: float = SILENCE_S) -> None:
        self.target, self.name, self.silence_s = target, name, silence_s

    def run(self, request: Request) -> Iterator[Message]:
        target = self.target
        command = ["ssh", "-p", str(target.port), "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
        if target.identity_file is not None:
            command += ["-i", str(Path(target.identity_file).expanduser()), "-o", "IdentitiesOnly=yes"]
        for option, value in target.options.items():
            command += ["-o", f"{option}={value}"]
        command += ["--", target.address, shlex.join([target.python, "-c", BOOTSTRAP])]
        return converse(command, payload(request), f"host {self.name!r}", self.silence_s)


class AdbRunner:
    """A process on a phone that has Python (e.g. Termux) and `adb`. Never run on a phone: tested at its seam."""

    def __init__(self, target: Phone, name: str, adb: str = "adb", silence_s: float = SILENCE_S) -> None:
        self.target, self.name, self.adb, self.silence_s = target, name, adb, silence_s

    def run(self, request: Request) -> Iterator[Message]:
        start = shlex.join([self.target.python, "-c", BOOTSTRAP])
        if request.profile.runner.cpu_mask is not None:
            start = f"taskset {shlex.quote(request.profile.runner.cpu_mask)} {start}"
        command = [self.adb, "-s", self.target.serial, "shell", "-T", start]
        return converse(command, payload(request), f"phone {self.name!r}", self.silence_s)


class RayRunner:
    """An actor on the node of a Ray cluster that bears the device's label and its one slot."""

    def __init__(self, label: dict[str, str], slot: str) -> None:
        self.label, self.slot = label, slot

    def run(self, request: Request) -> Iterator[Message]:
        from nas.execution import measure_on_ray

        lines = measure_on_ray(self.label, self.slot, request.to_json(), ray_address())
        return check_messages(lines, f"the Ray node with slot {self.slot!r}")


def runner_for(profile: HardwareProfile) -> Runner:
    """The runner that a profile names. Raises: ConfigError without its entry, ProfileError for a device not at hand."""
    wanted = profile.runner
    if wanted.kind == "ssh" and wanted.host_ref is not None:
        return SshRunner(host(wanted.host_ref), wanted.host_ref)
    if wanted.kind == "adb" and wanted.serial_ref is not None:
        return AdbRunner(phone(wanted.serial_ref), wanted.serial_ref)
    if wanted.kind == "ray" and wanted.slot is not None:
        return RayRunner(wanted.label, wanted.slot)
    if not profile.matches_this_machine():
        raise ProfileError(
            f"device {profile.id!r} is not this machine, so it cannot be measured here; run this on it, give its "
            f"profile a runner (docs/devices.md), or take an estimate with --how estimated"
        )
    return LocalRunner()


def payload(request: Request) -> bytes:
    """The length of the code's archive, the archive, and the request."""
    packed = bundle()
    return str(len(packed)).encode() + b"\n" + packed + request.to_json().encode()


def bundle() -> bytes:
    """The program's Python and data files as a tar archive: what a device needs besides its installed packages."""
    import nas

    root = Path(nas.__file__).parent.parent
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for package in PACKAGES:
            for file in sorted((root / package).rglob("*")):
                if file.suffix in SHIPPED_SUFFIXES:
                    archive.add(file, str(file.relative_to(root)), recursive=False)
    return packed.getvalue()


def converse(command: Sequence[str], sent: bytes, where: str, silence_s: float = SILENCE_S) -> Iterator[Message]:
    """Starts a command, sends it the bytes, and yields its answers. The process never outlives the conversation."""
    return check_messages(_lines(command, sent, where, silence_s), where)


def _lines(command: Sequence[str], sent: bytes, where: str, silence_s: float) -> Iterator[str]:
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise RunnerError(f"cannot start {command[0]!r} to reach {where}: {error.strerror}; install it") from error
    assert process.stdin and process.stdout and process.stderr
    lines: queue.Queue[str | None] = queue.Queue()
    said: list[str] = []
    threads = [
        threading.Thread(target=_send, args=(process.stdin, sent), daemon=True),
        threading.Thread(target=_read, args=(process.stdout, lines.put), daemon=True),
        threading.Thread(
            target=_read, args=(process.stderr, lambda line: said.append(line) if line else None), daemon=True
        ),
    ]
    for thread in threads:
        thread.start()
    try:
        while (line := lines.get(timeout=silence_s)) is not None:
            yield line
        if process.wait() != 0:
            threads[2].join(timeout=5)
            reason = next((line.strip() for line in reversed(said) if line.strip()), f"exit code {process.returncode}")
            raise RunnerError(f"{where} stopped before it was done: {reason}; what was finished is kept")
    except queue.Empty:
        raise RunnerError(f"{where} has said nothing for {silence_s:.0f} s and is taken for dead; try again") from None
    finally:
        _kill(process)
        for thread in threads:
            thread.join(timeout=5)
        for stream in (process.stdin, process.stdout, process.stderr):
            _close(stream)


def _send(stream: Any, sent: bytes) -> None:
    try:
        stream.write(sent)
        stream.close()
    except OSError:
        return  # the process ended early; its exit code and stderr say why


def _close(stream: Any) -> None:
    try:
        stream.close()
    except OSError:
        return


def _read(stream: Any, take: Callable[[str | None], object]) -> None:
    for line in stream:
        take(line.decode(errors="replace"))
    take(None)


def _kill(process: subprocess.Popen[bytes]) -> None:
    import os
    import signal

    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except OSError:
            process.kill()
        process.wait()


def check_messages(lines: Iterator[str], where: str) -> Iterator[Message]:
    """Messages in the order of the lines. Raises: RunnerError for nonsense, an error of the device, or no end."""
    done = False
    for line in lines:
        message = _message(line, where)
        if message["kind"] == "error":
            raise RunnerError(f"{where}: {message.get('message', 'unknown error')}")
        done = done or message["kind"] == "done"
        yield message
    if not done:
        raise RunnerError(f"{where} stopped before it was done; what was finished is kept, try again")


def _message(line: str, where: str) -> Message:
    try:
        message = json.loads(line, parse_constant=_refuse)
    except ValueError:
        raise RunnerError(f"{where} answered with something else than measurements: {line.strip()[:80]!r}") from None
    if not isinstance(message, dict) or message.get("kind") not in KINDS:
        raise RunnerError(f"{where} answered with something else than measurements: {line.strip()[:80]!r}")
    for record in (message.get("timings") or {}).values():
        samples = record["samples_ms"] if isinstance(record, dict) and record.get("samples_ms") else [math.nan]
        if not all(isinstance(value, int | float) and math.isfinite(value) and value > 0 for value in samples):
            raise RunnerError(f"{where} answered with a timing that is no positive number; measure it again")
    return message


def _refuse(text: str) -> float:
    raise ValueError(text)


def with_retries(
    run: Callable[[], None], attempts: int, pause: Callable[[float], None] = time.sleep
) -> RunnerError | None:
    """Runs up to `attempts` times; the last error where none succeeded."""
    failed: RunnerError | None = None
    for attempt in range(attempts):
        if attempt:
            pause(2.0**attempt)
        try:
            run()
            return None
        except RunnerError as error:
            failed = error
    return failed
