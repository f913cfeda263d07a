"""Runners: bring a request to a device and its answers back, line by line, so that nothing finished is lost.

`local` is a fresh process here. `ssh`, `adb` and `ray` send the program's own code along with the request, so that a
device needs Python with torch, transformers, timm, pydantic and PyYAML, but no checkout. One request at a time: a
measurement owns its device.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from hardware_profiles import HardwareProfile, ProfileError
from nas.errors import RefusalError, RunnerError
from nas.hosts import Host, Phone, host, hosts_file, phone, ray_address
from nas.latency.request import Request
from nas.latency.runner_bundle import arguments, payload, shell_line
from nas.latency.runner_messages import Message, check_messages
from nas.latency.runner_process import SILENCE_S, Conversation

SSH_DEFAULTS = {"BatchMode": "yes", "ConnectTimeout": "10", "ServerAliveInterval": "15", "ServerAliveCountMax": "4"}


class Runner(Protocol):
    """Takes a request to a device."""

    def run(self, request: Request) -> Iterator[Message]:
        """Messages as they come, the last one `done`. Closing the iterator stops the device. Raises: RunnerError."""


class LocalRunner:
    """A fresh process on this machine."""

    def __init__(self, silence_s: float = SILENCE_S) -> None:
        self.silence_s = silence_s

    def run(self, request: Request) -> Iterator[Message]:
        command, where = [sys.executable, "-m", "nas.latency.worker"], "this machine"
        lines = Conversation(command, where, silence_s=self.silence_s).lines(request.to_json().encode() + b"\n")
        return check_messages(lines, where, request)


class SshRunner:
    """A fresh process on a host that `ssh` reaches without a password."""

    def __init__(self, target: Host, name: str, silence_s: float = SILENCE_S) -> None:
        self.target, self.name, self.silence_s = target, name, silence_s

    def run(self, request: Request) -> Iterator[Message]:
        target = self.target
        command = ["ssh", "-p", str(target.port)]
        for option, value in (
            target.options | {k: v for k, v in SSH_DEFAULTS.items() if k not in target.options}
        ).items():
            command += ["-o", f"{option}={value}"]
        if target.identity_file is not None:
            command += ["-i", str(Path(target.identity_file).expanduser()), "-o", "IdentitiesOnly=yes"]
        workdir = target.workdir or request.profile.runner.workdir
        command += ["--", target.address, shell_line(target.python, workdir)]
        return _far(command, f"host {self.name!r}", request, self.silence_s)


class AdbRunner:
    """A process on a phone, through `adb shell`, which must be allowed to run the phone's Python.

    Never run on a phone: tested at its seam, with a stand-in `adb`.
    """

    def __init__(self, target: Phone, name: str, adb: str = "adb", silence_s: float = SILENCE_S) -> None:
        self.target, self.name, self.adb, self.silence_s = target, name, adb, silence_s

    def run(self, request: Request) -> Iterator[Message]:
        target, mask = self.target, request.profile.runner.cpu_mask
        start = shell_line(target.python, target.workdir or request.profile.runner.workdir)
        if mask is not None:
            start = f"taskset {mask.removeprefix('0x')} {start}"
        command = [self.adb, "-s", target.serial, "shell", "-T", start]
        return _far(command, f"phone {self.name!r}", request, self.silence_s)


class RayRunner:
    """An actor on the node of a Ray cluster that bears the device's labels and its one slot.

    A process of its own talks to that cluster, because a search may run on a cluster of its own. `address` None = the
    cluster that runs on this machine.
    """

    def __init__(
        self, label: dict[str, str], slot: str, address: str | None = None, silence_s: float = SILENCE_S
    ) -> None:
        self.label, self.slot, self.address, self.silence_s = label, slot, address, silence_s

    def run(self, request: Request) -> Iterator[Message]:
        sent = payload(request.to_json())
        asked = {
            "label": self.label,
            "slot": self.slot,
            "address": self.address,
            "arguments": arguments(request.profile.runner.workdir),
            "sent_bytes": len(sent),
        }
        where = f"Ray slot {self.slot!r}"
        talk = Conversation([sys.executable, "-m", "nas.ray_gauge"], where, silence_s=self.silence_s)
        return check_messages(talk.lines(json.dumps(asked).encode() + b"\n" + sent), where, request)


def runner_for(profile: HardwareProfile) -> Runner:
    """The runner that a profile names. Raises: ConfigError without its entry, ProfileError for a device not at hand."""
    wanted = profile.runner
    if wanted.kind == "ssh" and wanted.host_ref is not None:
        return SshRunner(host(wanted.host_ref), wanted.host_ref)
    if wanted.kind == "adb" and wanted.serial_ref is not None:
        return AdbRunner(phone(wanted.serial_ref), wanted.serial_ref)
    if wanted.kind == "ray" and wanted.slot is not None:
        return RayRunner(wanted.label, wanted.slot, ray_address())
    if not profile.matches_this_machine():
        raise ProfileError(
            f"device {profile.id!r} is not this machine, so it cannot be measured here; run this on it, give its "
            f"profile a runner (docs/devices.md), or take an estimate with --how estimated"
        )
    return LocalRunner()


def with_retries(
    run: Callable[[], None], attempts: int, pause: Callable[[float], None] = time.sleep
) -> RunnerError | None:
    """Runs up to `attempts` times; the last error where none succeeded. What would be refused again is not repeated."""
    failed: RunnerError | None = None
    for attempt in range(attempts):
        if attempt:
            pause(2.0**attempt)
        try:
            run()
            return None
        except RefusalError as error:
            return error
        except RunnerError as error:
            failed = error
    return failed


def _far(command: list[str], where: str, request: Request, silence_s: float) -> Iterator[Message]:
    mend = f"see that it is on, and correct its entry in {hosts_file()}"
    talk = Conversation(command, where, mend, silence_s=silence_s)
    return check_messages(talk.lines(payload(request.to_json())), where, request)
