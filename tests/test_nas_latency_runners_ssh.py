"""Measures through a real ssh server on loopback."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from runner_requests import BLOCKS, EVERY_BLOCK, assert_measured, ends, here, is_empty

from nas.errors import RunnerError
from nas.hosts import Host
from nas.latency.request import Request
from nas.latency.runners import SshRunner

SMALL = Request(here(kind="ssh", host_ref="pi"), blocks=BLOCKS)
LARGE = Request(here(kind="ssh", host_ref="pi"), blocks=EVERY_BLOCK)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A server that lets a fresh key in; its interpreter is named from the home folder, as users do."""
    server = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(server).is_file() or shutil.which("ssh") is None:
        pytest.skip("ssh and sshd are not both installed (Debian: openssh-client, openssh-server)")
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host", "PidFile": folder / "pid",
        "AuthorizedKeysFile": folder / "authorized", "StrictModes": "no", "UsePAM": "no",
        "PasswordAuthentication": "no", "PermitRootLogin": "yes",
    }  # fmt: skip
    (folder / "config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()), encoding="utf-8")
    with subprocess.Popen([server, "-D", "-f", str(folder / "config")], stderr=subprocess.DEVNULL) as process:
        if not _answers(port):
            process.terminate()
            pytest.skip("sshd is installed, but cannot be started by this user")
        yield Host(
            address=f"{getpass.getuser()}@127.0.0.1", port=port, identity_file=str(folder / "user"),
            python=sys.executable, workdir=str(folder / "bench"),
            options={"StrictHostKeyChecking": "no", "UserKnownHostsFile": str(folder / "known")},
        )  # fmt: skip
        process.terminate()


def _answers(port: int) -> bool:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        Event().wait(0.05)
    return False


def test_ssh_sends_the_code_measures_over_there_and_leaves_nothing_behind(sshd: Host) -> None:
    assert_measured(list(SshRunner(sshd, "pi").run(SMALL)))
    assert is_empty(sshd.workdir or "")


def test_a_device_that_dies_keeps_what_was_finished(sshd: Host) -> None:
    arrived: list[dict[str, Any]] = []
    with pytest.raises(RunnerError, match="host 'pi' stopped before it was done: its worker was ended by signal 9"):
        for message in SshRunner(sshd, "pi").run(LARGE):
            arrived.append(message)
            if message["kind"] == "timings":
                os.kill(arrived[0]["process"], 9)
    finished = {key for message in arrived for key in message.get("timings", {})}
    assert 0 < len(finished) < len(EVERY_BLOCK)
    assert finished <= {block.key for block in EVERY_BLOCK}


def test_a_link_that_breaks_stops_the_device(sshd: Host) -> None:
    """Else the next request would be measured while the last one still runs."""
    messages = SshRunner(sshd, "pi").run(LARGE)
    process = next(messages)["process"]
    messages.close()  # type: ignore[attr-defined]
    assert ends(process)
    assert is_empty(sshd.workdir or "")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"port": 1}, "Connection refused"),
        ({"identity_file": "/no/such/key"}, "Permission denied"),
        ({"python": "~/no-such-venv/bin/python"}, "No such file|not found"),
    ],
)
def test_a_host_that_cannot_be_used_is_said_at_once(sshd: Host, changed: dict[str, Any], message: str) -> None:
    other = sshd.model_copy(update=changed)
    with pytest.raises(RunnerError, match=f"host 'pi' gave no answer: .*({message}).*; see that it is on, and correct"):
        list(SshRunner(other, "pi", silence_s=30).run(SMALL))
