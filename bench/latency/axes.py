"""Composed against measured latency of one design per axis, all in one session: python bench/latency/axes.py

Each row changes one thing of `base`. What the change does to the measured latency is the speed-up or the cost that is
real here; the error is that of the composed one.
"""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from pathlib import Path

import numpy as np

import hardware_profiles
import nas.workload
from nas.latency.calibrate import check_composition
from nas.latency.device import Device
from nas.latency.terms import needed
from nas.store import Store
from search_spaces import Candidate

BASE = {
    "encoder": "vit-micro", "resolution": 112, "projector": "mlp", "compression": "none", "compression_factor": 1,
    "lm": "llama-micro", "lm_depth": 6,
}  # fmt: skip
CHANGES: dict[str, dict[str, object]] = {
    "base": {}, "encoder_depth 1": {"encoder_depth": 1}, "tiling grid 4": {"tiling": "grid", "tiles": 4},
    "any-resolution 4": {"tiling": "any-resolution", "tiles": 4}, "s2, 2 scales": {"tiling": "s2", "tiles": 2},
    "channel fusion": {"second_encoder": "conv-micro", "fusion": "channel"},
    "sequence fusion": {"second_encoder": "conv-micro", "fusion": "sequence"},
    "visionzip / 4": {"compression": "visionzip", "compression_factor": 4},
    "prumerge / 4": {"compression": "prumerge", "compression_factor": 4},
    "fastv / 4 after 2": {"compression": "fastv", "compression_factor": 4, "prune_layer": 2},
    "cross-attention": {"projector": "cross-attention"}, "lm_ffn": {"lm_ffn": 64}, "lm_heads": {"lm_heads": 2},
    "lm_experts 4": {"lm_experts": 4}, "int8 weights": {"lm_weights": "int8"}, "int4 weights": {"lm_weights": "int4"},
    "bf16 cache": {"kv_cache": "bf16"}, "int8 cache": {"kv_cache": "int8"}, "eager attention": {"attention": "eager"},
    "temporal 4": {"temporal_factor": 4},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=json.loads, default={}, help="fields of the base that differ, as JSON")
    parser.add_argument("--only", nargs="*", default=list(CHANGES), help="rows")
    parser.add_argument("--workload", default="vqa-short")
    arguments = parser.parse_args()
    workload = nas.workload.load(arguments.workload)
    rows = {name: Candidate.model_validate({**BASE, **arguments.base, **CHANGES[name]}) for name in arguments.only}
    every = list(rows.values())
    blocks = list({block.key: block for one in every for block in needed(one, workload)}.values())
    with closing(Store(f"sqlite:///{Path('axes.db').resolve()}")) as store:
        device = Device(hardware_profiles.load("local"), store)
        check = check_composition(device, every, workload, device.timings(blocks), len(every))
    found = {row["key"]: row for row in check.rows}
    print(
        f"{len(every)} designs, {len(blocks)} blocks, {workload.name}, {check.runtime} {check.version} {check.dtype}\n"
    )
    print("| design | measured TTFT ms | composed | measured ms a token | composed | measured total ms | composed |")
    print("|---|---|---|---|---|---|---|")
    for name, candidate in rows.items():
        row = found[candidate.key]
        cells = []
        for metric in ("ttft_ms", "tpot_ms", "latency_ms"):
            real, guess = row["measured"][metric], row["composed"][metric]
            cells += [f"{real:.2f}", f"{guess / real - 1:+.1%}"]
        print(f"| {name} | {' | '.join(cells)} |")
    for metric, error in check.errors.items():
        print(f"{metric}: mean {error.mean:.1%}, largest {error.worst:.1%}, rank correlation {error.spearman:.3f}")
    assert np.isfinite([error.mean for error in check.errors.values()]).all()


if __name__ == "__main__":
    main()
