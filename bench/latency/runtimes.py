"""Every runtime and number format on this machine, end to end and composed: python bench/latency/runtimes.py

Per runtime, in a process of its own: two designs that differ in depth in paired rounds, and among their requests the blocks
that they are composed of. The times are those of the first design; the errors, composed / measured - 1, of both.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import closing

import hardware_profiles
import nas.workload
import search_spaces
from nas.latency.backends import RUNTIMES
from nas.latency.compose import compose
from nas.latency.device import Device, Timings
from nas.latency.terms import needed
from nas.records import Latency
from nas.store import Store
from search_spaces import Candidate

METRICS = ("ttft_ms", "tpot_ms", "latency_ms")
CHANGED = {
    "encoder": "efficientnet-lite0", "resolution": 224, "projector": "mlp", "compression": "pixel-shuffle",
    "compression_factor": 4,
}  # fmt: skip
DEPTHS = (4, 10)  # between those that any runtime is measured at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    every = [f"{runtime}:{dtype}" for runtime, dtypes in RUNTIMES.items() for dtype in dtypes]
    parser.add_argument("--only", nargs="*", choices=every, default=every)
    workload, profile = nas.workload.load("vqa-short"), hardware_profiles.load("local")
    baseline = search_spaces.load("pocket").baseline_candidate
    designs = [Candidate(**{**baseline.to_dict(), **CHANGED, "lm_depth": depth}) for depth in DEPTHS]
    print(f"{profile.id}, {workload.name}; ms of {designs[0]}, errors of depths {DEPTHS}", flush=True)
    head = "runtime | version | vision + projector | prefill | TTFT | a token | whole answer | GiB | error TTFT | a token | whole"
    print(f"| {head} |\n|{'---|' * len(head.split('|'))}", flush=True)
    for runtime, dtype in (name.split(":") for name in parser.parse_args().only):
        with tempfile.TemporaryDirectory() as folder, closing(Store(f"sqlite:///{folder}/timings.db")) as store:
            device = Device(profile, store, runtime, dtype)
            blocks = {block.key: block for one in designs for block in needed(one, workload, runtime)}
            found, between = device.requests_and_blocks(
                {one.key: one for one in designs}, workload, list(blocks.values())
            )
            timings = Timings(device.context, between)
        measured = [found[one.key].latency for one in designs]
        composed = [compose(one, workload, timings, runtime) for one in designs]
        memory = found[designs[0].key].memory
        seen = [measured[0].vision_ms + measured[0].projector_ms, measured[0].prefill_ms]
        cells = [*(f"{value:.1f}" for value in (*seen, *(getattr(measured[0], name) for name in METRICS)))]
        cells += ["" if memory is None else f"{memory.in_gib()['peak_gib']:.2f}", *_errors(composed, measured)]
        print(f"| {runtime} {dtype} | {timings.context.version} | {' | '.join(cells)} |", flush=True)


def _errors(composed: list[Latency], measured: list[Latency]) -> list[str]:
    """By metric, of each design."""
    pairs = list(zip(composed, measured, strict=True))
    return [", ".join(f"{getattr(c, name) / getattr(m, name) - 1:+.1%}" for c, m in pairs) for name in METRICS]


if __name__ == "__main__":
    main()
