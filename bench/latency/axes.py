"""Composed against measured latency of one design per axis: python bench/latency/axes.py --only ROWS

Each row changes one thing of `base`, which is measured beside it in every run. What the change does to the measured
latency is the speed-up or the cost that is real here; the error is that of the composed one. Rows are kept in axes.json,
so that the table can be made in portions; every run prints all of it (`--only` without rows does nothing else).
"""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hardware_profiles
import nas.workload
from nas.latency.compose import compose
from nas.latency.device import Device
from nas.latency.terms import needed
from nas.store import Store
from search_spaces import Candidate

BASE = {
    "encoder": "dinov2-vits14", "resolution": 112, "projector": "mlp", "compression": "none", "compression_factor": 1,
    "lm": "smollm2-135m", "lm_depth": 6,
}  # fmt: skip
CHANGES: dict[str, dict[str, object]] = {
    "base": {}, "encoder_depth 8": {"encoder_depth": 8}, "tiling grid 4": {"tiling": "grid", "tiles": 4},
    "any-resolution 4": {"tiling": "any-resolution", "tiles": 4}, "s2, 2 scales": {"tiling": "s2", "tiles": 2},
    "channel fusion": {"second_encoder": "efficientnet-lite0", "fusion": "channel"},
    "sequence fusion": {"second_encoder": "efficientnet-lite0", "fusion": "sequence"},
    "visionzip / 4": {"compression": "visionzip", "compression_factor": 4},
    "tome-blocks / 4": {"compression": "tome-blocks", "compression_factor": 4},
    "prumerge / 4": {"compression": "prumerge", "compression_factor": 4},
    "fastv / 4 after 2": {"compression": "fastv", "compression_factor": 4, "prune_layer": 2},
    "cross-attention": {"projector": "cross-attention"}, "lm_ffn 768": {"lm_ffn": 768}, "lm_heads 3": {"lm_heads": 3},
    "lm_experts 4": {"lm_experts": 4}, "int8 weights": {"lm_weights": "int8"}, "int4 weights": {"lm_weights": "int4"},
    "bf16 cache": {"kv_cache": "bf16"}, "int8 cache": {"kv_cache": "int8"}, "eager attention": {"attention": "eager"},
    "temporal 4": {"temporal_factor": 4},
    "gemma-3-270m, grid 9": {"lm": "gemma-3-270m", "tiling": "grid", "tiles": 9},  # beyond its windows of 512
    **{lm: {"lm": lm} for lm in ("lfm2-350m", "mamba-130m", "mamba2-130m", "falcon-h1-0.5b", "gemma-3-270m")},
}  # fmt: skip
METRICS = ("ttft_ms", "tpot_ms", "latency_ms")
ROUNDS = 8  # of whole requests, with blocks timed among them


def measured(rows: dict[str, Candidate], workload: nas.workload.Workload) -> dict[str, dict[str, Any]]:
    """Each row's parts, composed and measured in one session, and the base's measured ones."""
    blocks = list({block.key: block for one in rows.values() for block in needed(one, workload)}.values())
    profile = hardware_profiles.load("local")
    profile = profile.model_copy(update={"protocol": profile.protocol.model_copy(update={"rounds": ROUNDS})})
    with TemporaryDirectory() as folder, closing(Store(f"sqlite:///{folder}/axes.db")) as store:
        device = Device(profile, store)
        found, between = device.requests_and_blocks(rows, workload, blocks)
        timings = device.known(blocks, between)
    when = datetime.now(UTC).isoformat(timespec="minutes")
    return {
        name: {
            "workload": workload.name,
            "blocks": len(needed(one, workload)),
            "measured_at": when,
            "base": found["base"].latency.to_dict(),
            "measured": found[name].latency.to_dict(),
            "composed": compose(one, workload, timings).to_dict(),
        }
        for name, one in rows.items()
    }


def line(name: str, row: dict[str, Any]) -> str:
    """Measured, against the base of the same session, and the error of the composed one."""
    cells = []
    for metric in METRICS:
        real = row["measured"][metric]
        cells += [f"{real:.1f}", f"{real / row['base'][metric]:.2f}", f"{row['composed'][metric] / real - 1:+.1%}"]
    return f"| {name} | {row['workload']} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=json.loads, default={}, help="fields of the base that differ, as JSON")
    parser.add_argument("--only", nargs="*", default=list(CHANGES), help="rows")
    parser.add_argument("--workload", default="vqa-short")
    parser.add_argument("--kept", type=Path, default=Path(__file__).with_suffix(".json"), help="rows")
    arguments = parser.parse_args()
    names = list(dict.fromkeys(["base", *arguments.only]))
    rows = {name: Candidate.model_validate({**BASE, **arguments.base, **CHANGES[name]}) for name in names}
    kept: dict[str, Any] = json.loads(arguments.kept.read_text()) if arguments.kept.exists() else {}
    if arguments.only:
        kept |= measured(rows, nas.workload.load(arguments.workload))
        arguments.kept.write_text(json.dumps(kept, indent=1))
    columns = [f"{metric} | x base | composed" for metric in METRICS]
    print(f"| design | workload | {' | '.join(columns)} |\n|---|---|{'---|' * 9}")
    for name in (name for name in CHANGES if name in kept):
        print(line(name, kept[name]))
    for metric in METRICS:
        errors = [abs(row["composed"][metric] / row["measured"][metric] - 1) for row in kept.values()]
        print(f"{metric}: mean {sum(errors) / len(errors):.1%}, largest {max(errors):.1%} of {len(errors)}")


if __name__ == "__main__":
    main()
