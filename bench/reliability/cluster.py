"""A Ray cluster without the checkout, that grows and loses a node under a search; as root, a network a node.

    python bench/reliability/cluster.py --trials 60                # nodes in network namespaces of their own (root, Linux)
    python bench/reliability/cluster.py --trials 60 --one-network

Runs the commands of docs/cluster.md: a head without processors, two worker nodes of one processor each whose Python
does not have this program, a search over them; then a third node joins, and one of the first two is killed. All of
them share a token. Namespaces are joined by a bridge, as machines are by a switch.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from searches import begin, count, database, said, search, stored, wait_until

PORT = 6399
BRIDGE, NETWORK = "nas-bench", "10.77.0"
MEMORY = str(80 * 2**20)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--one-network", action="store_true", help="all nodes at 127.0.0.1")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nas-cluster-") as name, networks(0 if asked.one_network else 3):
        cluster = Cluster(Path(name), apart=not asked.one_network)
        try:
            summary = examine(cluster, asked.trials)
        finally:
            cluster.stop()
    print(json.dumps(summary, indent=1))
    return 0 if summary["exit"] == 0 and summary["evaluations"] == summary["distinct"] == asked.trials else 1


def examine(cluster: Cluster, trials: int) -> dict[str, object]:
    """One search, with a node that joins after a quarter of the trials and one that dies after half of them."""
    cluster.start_head()
    nodes = [cluster.join(number) for number in (1, 2)]
    folder = cluster.place / "search"
    process = begin(folder, search(trials, "--workers", "3", "--cluster", cluster.address), **cluster.login)
    wait_until(lambda: count(database(folder)) >= trials // 4, process)
    added_after = count(database(folder))
    nodes.append(cluster.join(3))
    wait_until(lambda: count(database(folder)) >= trials // 2, process)
    killed_after = count(database(folder))
    kill(nodes[0])
    try:
        process.wait(timeout=300)
    finally:
        process.kill()
    print("\n".join(said(folder).splitlines()[-3:]))
    found = stored(database(folder))
    return {
        "nodes have the program": cluster.bare_has_program(), "node addresses": cluster.addresses, "exit": process.wait(),
        "evaluations": len(found.keys), "distinct": len(set(found.keys)), "failed": found.failed,
        "node added after": added_after, "node killed after": killed_after,
    }  # fmt: skip


@dataclass
class Cluster:
    """Nodes whose Python lacks this program; the head is on this machine's own network."""

    place: Path
    apart: bool  # every node in a network namespace of its own
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """A Python with the libraries of this one, but without this program: its `.pth` files are not read."""
        import torch

        self.login = {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"
        }  # fmt: skip
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.place / "bare"], check=True)
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        self.env = {**env, **self.login, "PYTHONPATH": str(Path(str(torch.__file__)).parents[1])}
        self.python = str(self.place / "bare" / "bin" / "python")

    @property
    def head(self) -> str:
        return f"{NETWORK}.1" if self.apart else "127.0.0.1"

    @property
    def address(self) -> str:
        return f"{self.head}:{PORT}"

    def start_head(self) -> None:
        self._start(
            [], self.head, "--head", "--port", str(PORT), "--num-cpus", "0", "--include-dashboard", "false",
            "--object-store-memory", MEMORY,
        )  # fmt: skip
        time.sleep(8)

    def join(self, number: int) -> subprocess.Popen[bytes]:
        inside = ["ip", "netns", "exec", f"{BRIDGE}-{number}"] if self.apart else []
        address = f"{NETWORK}.{10 + number}" if self.apart else self.head
        node = self._start(
            inside, address, "--address", self.address, "--num-cpus", "1", "--labels", f"node=worker-{number}",
            "--object-store-memory", MEMORY,
        )  # fmt: skip
        time.sleep(4)  # two that start at the same moment may take the same ports
        return node

    def _start(self, inside: list[str], address: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [
            *inside, self.python, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address", address,
            "--disable-usage-stats", *arguments,
        ]  # fmt: skip
        with (self.place / "nodes.log").open("ab") as log:
            node = subprocess.Popen(command, env=self.env, stdout=log, stderr=log, cwd=self.place)
        self.nodes.append(node)
        self.addresses.append(address)
        return node

    def bare_has_program(self) -> bool:
        command = [self.python, "-c", "import nas"]
        return subprocess.run(command, env=self.env, cwd="/", capture_output=True, check=False).returncode == 0

    def stop(self) -> None:
        for node in self.nodes:
            kill(node)


@contextmanager
def networks(number: int) -> Iterator[None]:
    """So many network namespaces, each with one address, and a bridge on this machine that joins them."""
    if not number:
        yield
        return
    names = [f"{BRIDGE}-{each}" for each in range(1, number + 1)]
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for place, name in enumerate(names, 1):
            ip("netns", "add", name)
            ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", name, "master", BRIDGE, "up")
            ip("-n", name, "addr", "add", f"{NETWORK}.{10 + place}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def kill(node: subprocess.Popen[bytes]) -> None:
    """The node and everything on it, at once."""
    if node.poll() is None:
        for process in [*psutil.Process(node.pid).children(recursive=True), node]:
            process.kill()
    node.wait()


if __name__ == "__main__":
    raise SystemExit(main())
