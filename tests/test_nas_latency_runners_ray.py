"""Two Ray nodes on this machine, one of them "the device": measurements run there, one at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from runner_requests import BLOCKS, EVERY_BLOCK, assert_measured, ends, here, is_empty

from nas.errors import RunnerError
from nas.latency.blocks import BlockSpec
from nas.latency.request import Request
from nas.latency.runner_process import Conversation
from nas.latency.runners import RayRunner

LABEL, SLOT = {"device": "pi"}, "pi_slot"
# In a process of its own, as clusters are; a word on stdin takes the device's node away, the end of stdin all.
CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster
few = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=few)
device = cluster.add_node(**few, resources={"pi_slot": 1}, labels={"device": "pi"})
cluster.wait_for_nodes()
print("READY", json.dumps([cluster.address, cluster.head_node.node_id, device.node_id]), flush=True)
if sys.stdin.readline():
    cluster.remove_node(device, allow_graceful=False)
    sys.stdin.readline()
cluster.shutdown()
"""


def asked(workdir: Path, blocks: tuple[BlockSpec, ...]) -> Request:
    return Request(here(kind="ray", slot=SLOT, label=LABEL, workdir=str(workdir)), blocks=blocks)


@dataclass(frozen=True)
class Nodes:
    """A running cluster: its address, the ids of its nodes, and the process that holds it."""

    address: str
    head: str
    device: str
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=environment,
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout
        ready = next(line for line in process.stdout if line.startswith("READY"))
        yield Nodes(*json.loads(ready.removeprefix("READY")), process)
        process.stdin.close()


def test_ray_measures_on_the_labelled_node_one_at_a_time(nodes: Nodes, tmp_path: Path) -> None:
    found: list[list[tuple[float, dict[str, Any]]]] = []

    def measure() -> None:
        messages = RayRunner(LABEL, SLOT, nodes.address).run(asked(tmp_path, BLOCKS))
        found.append([(time.monotonic(), message) for message in messages if message["kind"] != "progress"])

    threads = [threading.Thread(target=measure) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = sorted(found, key=lambda answers: answers[0][0])
    for answers in (first, second):
        assert_measured([message for _, message in answers])
        assert answers[0][1]["node"] == nodes.device != nodes.head
    assert first[0][1]["process"] != second[0][1]["process"]
    assert first[-1][0] <= second[0][0], "the second request started before the first was done"
    assert is_empty(tmp_path)


def test_a_request_that_is_dropped_frees_the_device(nodes: Nodes, tmp_path: Path) -> None:
    messages = RayRunner(LABEL, SLOT, nodes.address).run(asked(tmp_path, EVERY_BLOCK))
    process = next(messages)["process"]
    messages.close()  # type: ignore[attr-defined]
    assert ends(process) and is_empty(tmp_path)


def refusal(wanted: dict[str, Any]) -> str:
    """What is said instead of measurements."""
    talk = Conversation([sys.executable, "-m", "nas.ray_gauge"], "a cluster")
    sent = json.dumps(wanted | {"arguments": [], "sent_bytes": 0}).encode() + b"\n"
    return str(json.loads(next(talk.lines(sent)))["message"])


def test_a_device_that_is_not_in_the_cluster_is_said_with_the_line_to_type(nodes: Nodes) -> None:
    message = refusal({"label": {"device": "tx"}, "slot": SLOT, "address": nodes.address, "patience_s": 1})
    assert "no Ray node has the slot 'pi_slot' and the labels device=tx after 1 s" in message
    assert """ray start --address HEAD:6379 --labels device=tx --resources '{"pi_slot": 1}'""" in message


def test_a_node_that_dies_keeps_what_was_finished(nodes: Nodes, tmp_path: Path) -> None:
    """The last test of the module: the device's node is gone after it."""
    arrived: list[dict[str, Any]] = []
    with pytest.raises(RunnerError, match=r"Ray slot 'pi_slot': .*what was finished is kept"):
        for message in RayRunner(LABEL, SLOT, nodes.address).run(asked(tmp_path, EVERY_BLOCK)):
            if message["kind"] == "timings" and not any(each["kind"] == "timings" for each in arrived):
                assert nodes.process.stdin
                nodes.process.stdin.write("the device dies\n")
                nodes.process.stdin.flush()
            arrived.append(message)
    finished = {key for message in arrived for key in message.get("timings", {})}
    assert 0 < len(finished) < len(EVERY_BLOCK)
    assert ends(arrived[0]["process"]) and is_empty(tmp_path)


def test_no_cluster_is_said_with_its_address() -> None:
    message = refusal({"label": {}, "slot": SLOT, "address": "127.0.0.1:1"})
    assert "no Ray cluster answers at 127.0.0.1:1 (" in message
