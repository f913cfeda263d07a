"""Runners on this machine: a fresh process, a stand-in adb, and devices that speak nonsense, fall silent or die."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest
from runner_requests import BLOCKS, CANDIDATE, WORKLOAD, assert_measured, ends, here, timing

import hardware_profiles
from hardware_profiles import ProfileError
from nas.errors import RefusalError, RunnerError
from nas.hosts import Phone
from nas.latency.blocks import BlockSpec
from nas.latency.request import Request, end_to_end
from nas.latency.runner_bundle import bundle
from nas.latency.runner_messages import check_messages
from nas.latency.runner_process import Conversation
from nas.latency.runners import AdbRunner, LocalRunner, runner_for, with_retries
from nas.latency.worker import SpeakingClock, serve

ASKED = Request(here(), blocks=BLOCKS, candidates={"a": CANDIDATE}, workload=WORKLOAD, rounds=3)
STATE = '{"kind": "environment", "runtime_version": "2.14.1", "canary_ms": 1.0}\n'
DONE = '{"kind": "done"}\n'


def talk(code: str, silence_s: float = 60, **options: Any) -> Conversation:
    return Conversation([sys.executable, "-c", code], "host 'x'", silence_s=silence_s, **options)


def test_a_request_survives_its_way_over_the_wire() -> None:
    assert Request.from_json(ASKED.to_json()) == ASKED


def test_the_local_runner_measures_blocks_and_requests_in_another_process() -> None:
    messages = list(LocalRunner().run(ASKED))
    assert_measured(messages)
    assert messages[0]["process"] != os.getpid()
    assert messages[-1]["involuntary_switches"] >= 0
    (results,) = [message["results"] for message in messages if message["kind"] == "requests"]
    found = end_to_end(results["a"])
    assert found.latency.label == "measured" and len(found.totals_ms) == 3
    assert found.memory is None or min(found.memory.weights_bytes, found.memory.kv_bytes) > 0


def test_a_machine_that_is_not_the_device_is_refused() -> None:
    other = hardware_profiles.load("rtx-4090")
    with pytest.raises(RunnerError, match="is not device 'rtx-4090'"):
        list(LocalRunner().run(Request(other, blocks=BLOCKS)))
    with pytest.raises(ProfileError, match=r"give its profile a runner.*--how estimated"):
        runner_for(other)


def test_a_mask_of_processors_that_are_not_there_is_refused() -> None:
    with pytest.raises(RunnerError, match="cpu_mask '0x0' names none"):
        list(LocalRunner().run(Request(here(cpu_mask="0x0"), blocks=BLOCKS)))


def test_a_device_cools_down_after_every_group() -> None:
    """In this process, which measures a single block that is nothing but preprocessing."""
    blocks = tuple(block for block in BLOCKS if block.kind == "preprocess")
    pauses: list[float] = []
    messages: list[dict[str, Any]] = []
    serve(Request(here(cooldown_s=7), blocks=blocks), messages.append, pauses.append)
    assert len(pauses) == sum(message["kind"] == "timings" for message in messages) > 0
    assert set(pauses) == {7}


def test_a_slow_device_speaks_while_it_works() -> None:
    now = iter([0.0, 10.0, 31.0, 40.0, 62.0])
    said: list[dict[str, Any]] = []
    clock = SpeakingClock(said.append, lambda: next(now), quiet_s=30)
    assert [clock() for _ in range(4)] == [10.0, 31.0, 40.0, 62.0]
    assert said == [{"kind": "progress"}] * 2


def answer(fields: dict[str, Any], key: str = BLOCKS[0].key) -> str:
    return json.dumps({"kind": "timings", "timings": {key: fields}})


OTHER_BLOCK = BlockSpec("preprocess", batch=99, resolution=1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hello", "something else than measurements: 'hello'"),
        ("[1]", "something else than measurements"),
        ("[" * 100_000, "something else than measurements"),
        ('{"kind": "pickle"}', "something else than measurements"),
        ('{"kind": ["done"]}', "something else than measurements"),
        (answer(timing(BLOCKS[0], samples_ms=[float("nan")])), "something else than measurements"),
        (answer(timing(BLOCKS[0])).replace("1.0", "1e999", 1), "something else than measurements"),
        (answer(timing(BLOCKS[0], samples_ms=[-1.0])), "samples_ms must be positive"),
        (answer(timing(BLOCKS[0], samples_ms=[])), "samples_ms must be positive"),
        (answer(timing(BLOCKS[0], samples_ms=["1"])), "samples_ms.0"),
        (answer(timing(BLOCKS[0], canary_ms=0)), "canary_ms must be positive"),
        (answer(timing(BLOCKS[0], modelled=0.1)), "instead of measured"),
        (answer(timing(BLOCKS[0], surprise=1)), "surprise"),
        (answer(timing(BLOCKS[1])), "of another block"),
        (answer(timing(OTHER_BLOCK), OTHER_BLOCK.key), "not what was asked"),
        ('{"kind": "timings", "timings": [1]}', "not what was asked"),
        ('{"kind": "timings"}', "not what was asked"),
        ('{"kind": "requests", "results": {"a": {}}}', "not what was asked"),
        ('{"kind": "requests", "results": {"b": {}}}', "not what was asked"),
        (STATE.replace("2.14.1", "\\u001b[31m"), "runtime_version is no version"),
        (STATE.replace("1.0", "0"), "canary_ms must be positive"),
        (STATE, "stopped before it was done"),
        ('{"kind": "error", "message": "no \\u001b[31mtorch"}', r"host 'x': no  \[31mtorch"),
    ],
)
def test_nonsense_from_a_device_is_one_clear_line(line: str, message: str) -> None:
    with pytest.raises(RunnerError, match=message) as caught:
        list(check_messages(iter([line]), "host 'x'", ASKED))
    assert len(str(caught.value).splitlines()) == 1


def test_what_comes_before_nonsense_is_kept() -> None:
    lines = iter([STATE, answer(timing(BLOCKS[0])), "Segmentation fault"])
    arrived = []
    with pytest.raises(RunnerError, match="Segmentation fault"):
        for message in check_messages(lines, "host 'x'", ASKED):
            arrived.append(message["kind"])
    assert arrived == ["environment", "timings"]


def test_a_silent_device_is_taken_for_dead_and_killed() -> None:
    """It has closed its stdout in the second case, and still does not end."""
    for code in ("import time; time.sleep(60)", "import os, time; os.close(1); time.sleep(60)"):
        with pytest.raises(RunnerError, match=r"said nothing for 0\.5 s"):
            list(talk(code, silence_s=0.5).lines(b""))


def test_a_conversation_that_is_dropped_ends_its_process() -> None:
    """As Ctrl-C does."""
    lines = talk("import os, time; print(os.getpid(), flush=True); time.sleep(60)").lines(b"")
    process = int(next(lines))
    lines.close()  # type: ignore[attr-defined]
    assert ends(process)


def test_the_last_words_of_a_process_say_why_it_ended() -> None:
    with pytest.raises(RunnerError, match="host 'x' gave no answer: out of luck; try again"):
        list(talk("import sys; sys.exit('first line\\nout of luck')").lines(b""))
    with pytest.raises(RunnerError, match="cannot start 'no-such-ssh' to reach host 'x'"):
        list(Conversation(["no-such-ssh"], "host 'x'").lines(b""))


def test_an_endless_line_is_refused() -> None:
    code = "import sys\nwhile True: sys.stdout.write('x' * 65536)"
    with pytest.raises(RunnerError, match="answered with a line over"):
        list(talk(code).lines(b""))


def test_conversations_do_not_mix() -> None:
    heard: dict[str, list[str]] = {}

    def listen(name: str) -> None:
        heard[name] = list(talk("import sys; print(sys.stdin.read(1), end='')").lines(name.encode()))

    threads = [threading.Thread(target=listen, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {"a": ["a"], "b": ["b"]}


def test_retries_end_with_the_last_error() -> None:
    pauses: list[float] = []

    def fail() -> None:
        raise RunnerError("gone")

    failed = with_retries(fail, 3, pauses.append)
    assert str(failed) == "gone" and len(pauses) == 2
    assert with_retries(lambda: None, 3, pauses.append) is None


def test_what_will_be_refused_again_is_not_retried() -> None:
    """A mistake of the profile, a package that is not there, a program that is not installed."""
    pauses: list[float] = []
    error = json.dumps({"kind": "error", "message": "it lacks torch", "lasting": True})
    requests = [
        lambda: list(check_messages(iter([error]), "host 'x'", ASKED)),
        lambda: list(Conversation(["no-such-ssh"], "host 'x'").lines(b"")),
        lambda: list(LocalRunner().run(Request(here(cpu_mask="0x0"), blocks=BLOCKS))),
    ]
    for ask in requests:
        assert isinstance(with_retries(lambda ask=ask: ask() and None, 3, pauses.append), RefusalError)  # type: ignore[misc]
    assert pauses == []


def test_the_bundle_holds_the_worker_and_its_data_and_is_small() -> None:
    packed = bundle()
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        names = set(archive.getnames())
    assert {"nas/latency/worker.py", "search_spaces/reading.py", "nas/workloads/vqa-short.yaml"} <= names
    assert not [name for name in names if name.startswith("/") or ".." in name or "test" in name.split("/")[0]]
    assert len(packed) < 2**20


@pytest.fixture
def adb(tmp_path: Path) -> Path:
    """A stand-in that writes its arguments down and runs the shell command here."""
    program = tmp_path / "adb"
    log = tmp_path / "arguments"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {log}\nshift 4\nexec sh -c "$1"\n', encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_adb_gets_the_serial_the_mask_and_the_same_bundle(adb: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "it's here"
    phone = Phone(serial="ABC123", python=sys.executable, workdir=str(workdir))
    profile = here(kind="adb", serial_ref="pixel", cpu_mask="0x1")
    assert_measured(list(AdbRunner(phone, "pixel", str(adb)).run(Request(profile, blocks=BLOCKS))))
    said = (tmp_path / "arguments").read_text(encoding="utf-8").splitlines()
    assert said[:4] == ["-s", "ABC123", "shell", "-T"]
    assert said[4].startswith(f"taskset 1 {sys.executable} -c ")
    assert workdir.is_dir()


def test_a_device_that_lacks_a_package_says_which(adb: Path, tmp_path: Path) -> None:
    """Its Python is a fresh environment without any."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    phone = Phone(serial="ABC123", python=str(bare / "bin" / "python"))
    with pytest.raises(
        RunnerError, match=r"phone 'pixel': it lacks the Python package '\w+'; run there: .*pip install"
    ):
        list(AdbRunner(phone, "pixel", str(adb)).run(Request(here(), blocks=BLOCKS)))


def test_a_device_without_python_gives_no_answer(adb: Path) -> None:
    phone = Phone(serial="ABC123", python="/no/such/python")
    with pytest.raises(RunnerError, match=r"phone 'pixel' gave no answer: .*not found; see that it is on"):
        list(AdbRunner(phone, "pixel", str(adb)).run(Request(here(), blocks=BLOCKS)))
