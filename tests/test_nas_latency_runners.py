"""Every runner measures for real on this machine: a fresh process, ssh on loopback, a stand-in adb, two Ray nodes."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import hardware_profiles
import nas.workload
import search_spaces
from hardware_profiles import HardwareProfile, ProfileError
from nas.errors import ConfigError, RunnerError
from nas.hosts import Host, Phone
from nas.latency.blocks import BlockSpec, needed
from nas.latency.request import Request, block_timing, end_to_end
from nas.latency.runners import AdbRunner, LocalRunner, SshRunner, check_messages, converse, runner_for, with_retries

WORKLOAD = nas.workload.load("vqa-short")
CANDIDATE = search_spaces.load("micro").baseline_candidate
BLOCKS = tuple(needed(CANDIDATE, WORKLOAD)[:3])


def here(**runner: Any) -> HardwareProfile:
    """This machine, with few threads and a small cache, reached as `runner` says."""
    fields = hardware_profiles.detect().model_dump(mode="json", by_alias=True)
    fields["compute"]["threads"] = 1
    fields["memory"]["levels"] = [{"name": "l2", "size_mib": 1}, {"name": "dram"}]
    return HardwareProfile.model_validate(fields | {"runner": runner})


def measured(messages: list[dict[str, Any]], blocks: tuple[BlockSpec, ...] = BLOCKS) -> None:
    """Environment first, `done` last, and every block with its samples between."""
    assert messages[0]["kind"] == "environment" and messages[-1]["kind"] == "done"
    assert messages[0]["canary_ms"] > 0 and messages[0]["runtime_version"]
    found = {key: block_timing(t) for m in messages for key, t in m.get("timings", {}).items()}
    assert set(found) == {block.key for block in blocks}
    assert all(timing.value_ms > 0 and len(timing.samples_ms) >= 8 for timing in found.values())


def test_a_request_survives_its_way_over_the_wire() -> None:
    request = Request(here(), blocks=BLOCKS, candidates={"a": CANDIDATE}, workload=WORKLOAD, rounds=2)
    assert Request.from_json(request.to_json()) == request


def test_the_local_runner_measures_blocks_and_requests_in_another_process() -> None:
    request = Request(here(), blocks=BLOCKS, candidates={"a": CANDIDATE}, workload=WORKLOAD, rounds=3)
    messages = list(LocalRunner().run(request))
    measured(messages)
    assert messages[0]["process"] != os.getpid()
    (results,) = [message["results"] for message in messages if message["kind"] == "requests"]
    found = end_to_end(results["a"])
    assert found.latency.label == "measured" and len(found.totals_ms) == 3
    assert found.memory is None or found.memory.weights_bytes > 0


def test_a_machine_that_is_not_the_device_is_refused_by_the_worker() -> None:
    other = hardware_profiles.load("rtx-4090")
    with pytest.raises(RunnerError, match="is not device 'rtx-4090'"):
        list(LocalRunner().run(Request(other, blocks=BLOCKS)))
    with pytest.raises(ProfileError, match="give its profile a runner"):
        runner_for(other)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["hello\n"], "something else than measurements"),
        (['{"kind": "pickle"}\n'], "something else than measurements"),
        (['{"kind": "timings", "timings": {"a": {"samples_ms": [NaN]}}}\n'], "something else"),
        (['{"kind": "timings", "timings": {"a": {"samples_ms": [-1.0]}}}\n'], "no positive number"),
        (['{"kind": "environment"}\n'], "stopped before it was done"),
        (['{"kind": "error", "message": "no torch"}\n'], "no torch"),
    ],
)
def test_nonsense_from_a_device_is_one_clear_line(lines: list[str], message: str) -> None:
    with pytest.raises(RunnerError, match=message):
        list(check_messages(iter(lines), "host 'x'"))


def test_a_silent_device_is_taken_for_dead_and_killed() -> None:
    start = time.monotonic()
    with pytest.raises(RunnerError, match="said nothing"):
        list(converse([sys.executable, "-c", "import time; time.sleep(60)"], b"", "host 'x'", silence_s=0.5))
    assert time.monotonic() - start < 30


def test_retries_end_with_the_last_error() -> None:
    pauses: list[float] = []

    def fail() -> None:
        raise RunnerError("gone")

    failed = with_retries(fail, 3, pauses.append)
    assert str(failed) == "gone" and len(pauses) == 2
    assert with_retries(lambda: None, 3, pauses.append) is None


def test_a_host_that_is_not_in_the_users_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text("hosts: {orin-1: {address: me@10.0.0.7}}\n", encoding="utf-8")
    monkeypatch.setenv("NAS_HOSTS", str(file))
    assert isinstance(runner_for(here(kind="ssh", host_ref="orin-1")), SshRunner)
    with pytest.raises(ConfigError, match="did you mean 'orin-1'"):
        runner_for(here(kind="ssh", host_ref="orin-2"))
    file.write_text("hosts: {orin-1: {address: -oProxyCommand=evil}}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="address"):
        runner_for(here(kind="ssh", host_ref="orin-1"))


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A real server on loopback that lets a fresh key in."""
    server = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(server).is_file():
        pytest.skip("sshd is not installed (Debian: openssh-server)")
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
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield Host(
            address=f"{getpass.getuser()}@127.0.0.1", port=port, identity_file=str(folder / "user"),
            python=sys.executable, options={"StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null"},
        )  # fmt: skip
        process.terminate()


def test_ssh_sends_the_code_and_measures_over_there(sshd: Host) -> None:
    measured(list(SshRunner(sshd, "pi").run(Request(here(kind="ssh", host_ref="pi"), blocks=BLOCKS))))


def test_a_device_that_dies_keeps_what_was_finished(sshd: Host) -> None:
    every = {b.key: b for c in search_spaces.load("micro").candidates for b in needed(c, WORKLOAD)}
    arrived: list[dict[str, Any]] = []
    with pytest.raises(RunnerError, match="host 'pi' stopped before it was done"):
        for message in SshRunner(sshd, "pi").run(
            Request(here(kind="ssh", host_ref="pi"), blocks=tuple(every.values()))
        ):
            arrived.append(message)
            if message["kind"] == "timings":
                os.kill(arrived[0]["process"], 9)
    groups = [message["timings"] for message in arrived if message["kind"] == "timings"]
    assert 1 <= len(groups) < len(every) / 24 + 1
    assert all(key in every for group in groups for key in group)


def test_a_host_that_does_not_answer_is_said_at_once(sshd: Host) -> None:
    closed = sshd.model_copy(update={"port": 1})
    with pytest.raises(RunnerError, match="host 'pi' stopped before it was done"):
        list(SshRunner(closed, "pi").run(Request(here(), blocks=BLOCKS)))


def test_adb_gets_the_serial_the_mask_and_the_same_bundle(tmp_path: Path) -> None:
    """A stand-in adb writes its arguments down and runs the shell command here."""
    adb, log = tmp_path / "adb", tmp_path / "arguments"
    adb.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {log}\nshift 4\nexec sh -c "$1"\n', encoding="utf-8")
    adb.chmod(adb.stat().st_mode | stat.S_IXUSR)
    phone = Phone(serial="ABC123", python=sys.executable)
    profile = here(kind="adb", serial_ref="pixel", cpu_mask="1")
    measured(list(AdbRunner(phone, "pixel", str(adb)).run(Request(profile, blocks=BLOCKS))))
    said = log.read_text(encoding="utf-8").splitlines()
    assert said[:4] == ["-s", "ABC123", "shell", "-T"] and said[4].startswith("taskset 1 ")


RAY_SCRIPT = """
import json, sys, threading, time
import ray
from ray.cluster_utils import Cluster
from nas.execution import measure_on_ray
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 * 2**20})
device = cluster.add_node(num_cpus=1, resources={"pi_slot": 1}, labels={"device": "pi"}, object_store_memory=80 * 2**20)
ray.init(address=cluster.address, log_to_driver=False)
request, found = sys.stdin.read(), {}
def go(number):
    spans = []
    for line in measure_on_ray({"device": "pi"}, "pi_slot", request):
        spans.append((time.time(), json.loads(line)["kind"]))
    found[number] = spans
threads = [threading.Thread(target=go, args=(number,)) for number in range(2)]
[t.start() for t in threads]; [t.join() for t in threads]
try:
    list(measure_on_ray({"device": "other"}, "pi_slot", request, patience_s=3)); missing = ""
except Exception as error:
    missing = str(error)
print(json.dumps({"spans": [found[0], found[1]], "missing": missing}))
ray.shutdown(); cluster.shutdown()
"""


def test_ray_measures_on_the_labelled_node_one_at_a_time() -> None:
    request = Request(here(kind="ray", slot="pi_slot", label={"device": "pi"}), blocks=BLOCKS)
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", RAY_SCRIPT], input=request.to_json(), capture_output=True, text=True, timeout=240,
        env=environment, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    first, second = sorted(found["spans"])
    assert [kind for _, kind in first] == [kind for _, kind in second] == ["environment", "timings", "timings", "done"]
    assert first[-1][0] <= second[0][0], "the second request started before the first was done"
    assert "ray start --address" in found["missing"] and "device=other" in found["missing"]


def test_concurrent_local_conversations_do_not_mix() -> None:
    command = [sys.executable, "-c", "import sys; print(sys.stdin.read(), end='')"]
    heard: dict[str, list[dict[str, Any]]] = {}

    def talk(name: str) -> None:
        sent = json.dumps({"kind": "environment", "name": name}) + "\n" + '{"kind": "done"}\n'
        heard[name] = list(converse(command, sent.encode(), name))

    threads = [threading.Thread(target=talk, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: messages[0]["name"] for name, messages in heard.items()} == {"a": "a", "b": "b"}


def test_a_profile_never_holds_an_address(tmp_path: Path) -> None:
    fields = here().model_dump(mode="json", by_alias=True) | {"runner": {"kind": "ssh", "host_ref": "me@host"}}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(fields), encoding="utf-8")
    with pytest.raises(ProfileError, match="host_ref"):
        hardware_profiles.load(str(file))
