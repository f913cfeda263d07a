"""Measurements on the node of a Ray cluster that bears a device's labels and its one slot."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from nas.errors import RunnerError
from nas.latency.lifeline import end_with_stdin
from nas.ray_session import connected


class _Gauge:
    """Measures on the node that it was placed on; its node holds one slot, so that there is never a second at work."""

    def run(self, arguments: list[str], sent: bytes) -> Iterator[str]:
        """Lines of a Python process of its own, like on every other device. Its stdin ends when this actor does."""
        import json
        import subprocess
        import sys
        import tempfile

        import ray

        environment = {**os.environ, "NAS_NODE": ray.get_runtime_context().get_node_id()}
        # Ray kills the children and the process group of an actor outright; a grandchild in a session of its own lives
        # to see its stdin end, and clears up.
        command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, *arguments]
        with tempfile.TemporaryFile() as said, subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=environment,
            start_new_session=True,
        ) as process:  # fmt: skip
            assert process.stdin and process.stdout
            process.stdin.write(sent)
            process.stdin.flush()
            for line in process.stdout:
                yield line.decode(errors="replace")
            if process.wait() != 0:
                said.seek(0)
                words = said.read().decode(errors="replace").split("\n")
                reason = next((line for line in reversed(words) if line.strip()), f"exit code {process.returncode}")
                yield json.dumps({"kind": "error", "message": reason}) + "\n"


def measure_on_ray(
    label: Mapping[str, str],
    slot: str,
    arguments: list[str],
    sent: bytes,
    address: str | None = None,
    patience_s: float = 30,
) -> Iterator[str]:
    """Lines of `python arguments` on the node that bears the label and the slot, as they come; `sent` is its stdin.

    Raises: RunnerError where no such node is there within `patience_s`, or where it dies. A busy one is waited for.
    """
    ray = connected(address)
    gauge: Any = ray.remote(num_cpus=0, max_restarts=0)(_Gauge)
    actor: Any = gauge.options(resources={slot: 1}, label_selector=dict(label)).remote()
    try:
        ready = actor.__ray_ready__.remote()
        while not ray.wait([ready], timeout=patience_s)[0]:
            if not any(_bears(node, label, slot) for node in ray.nodes()):
                raise RunnerError(_missing(label, slot, patience_s))
            yield '{"kind": "progress"}\n'  # another request has the slot
        for line in actor.run.options(num_returns="streaming").remote(arguments, sent):
            yield ray.get(line)
    except ray.exceptions.RayError as error:
        raise RunnerError(
            f"the node died ({type(error).__name__}); what was finished is kept, start it again and try again"
        ) from error
    finally:
        ray.kill(actor)


def _bears(node: Mapping[str, Any], label: Mapping[str, str], slot: str) -> bool:
    return bool(node["Alive"] and node["Resources"].get(slot) and label.items() <= node["Labels"].items())


def _missing(label: Mapping[str, str], slot: str, patience_s: float) -> str:
    labels = ",".join(f"{key}={value}" for key, value in label.items())
    flag = f"--labels {labels} " if labels else ""
    return (
        f"no Ray node has the slot {slot!r} and the labels {labels or '(none)'} after {patience_s:g} s; on the device "
        f"run: ray start --address HEAD:6379 {flag}--resources '{{\"{slot}\": 1}}'"
    )


def main() -> int:
    """Measures through a cluster in a process of its own: a search in this program may have a cluster of its own.

    Stdin: the arguments of `measure_on_ray` as a line of JSON, then so many bytes to be sent as it says; it stays open
    as a lifeline. Stdout: the device's lines.
    """
    import json
    import sys

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not come between the lines
    asked = json.loads(sys.stdin.buffer.readline())
    sent = sys.stdin.buffer.read(asked.pop("sent_bytes"))
    end_with_stdin()
    try:
        for line in measure_on_ray(**asked, sent=sent):
            answers.write(line)
            answers.flush()
    except RunnerError as error:
        answers.write(json.dumps({"kind": "error", "message": str(error)}) + "\n")
        answers.flush()
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
