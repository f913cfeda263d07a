"""What token compression really saves: python bench/space/compression.py --only "avgpool/4" "tome/4" ...

Whole requests of designs that differ in nothing else, run in turn in paired rounds on this machine, beside the design
without compression. The tokens are those that reach the first and the last layer of the decoder, as seen by hooks in a
run of the built model: what is dropped is gone, not masked. `composed` is the error of the latency that is composed of
blocks, timed among these requests (rows of before were timed without). Rows are kept in compression.json; every run
prints all of them.
"""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import hardware_profiles
import nas.workload
from nas.cost import cost
from nas.latency.compose import compose
from nas.latency.device import Device
from nas.latency.measure import measuring
from nas.latency.terms import needed
from nas.model import MultimodalLM, build
from nas.store import Store
from search_spaces import Candidate

BASE = {
    "encoder": "dinov2-vits14", "resolution": 224, "projector": "mlp", "compression": "none", "compression_factor": 1,
    "lm": "smollm2-135m", "lm_depth": 12,
}  # fmt: skip
FACTORS = {
    "avgpool": (4, 16), "maxpool": (4, 16, 64), "adaptive": (2, 4, 16), "pixel-shuffle": (4, 16, 64),
    "matryoshka": (4, 16, 64), "tome": (2, 4, 16), "tome-blocks": (2, 4, 8), "visionzip": (2, 4, 16),
    "prumerge": (2, 4, 16), "fastv": (2, 4, 16), "queries": (4, 16, 64),
}  # fmt: skip
QUERIES = ("perceiver", "q-former", "c-abstractor", "token-packer")
WORKLOAD = nas.workload.load("vqa-short")
ROUNDS = 8


def designs() -> dict[str, Candidate]:
    """By a short name."""
    found = {"none": Candidate.model_validate(BASE)}
    for method, factors in FACTORS.items():
        for factor in factors:
            changes: dict[str, Any] = {"compression": method, "compression_factor": factor}
            if method == "fastv":
                changes["prune_layer"] = 2
            for projector in QUERIES if method == "queries" else ("mlp",):
                name = f"{projector if method == 'queries' else method}/{factor}"
                found[name] = Candidate.model_validate(BASE | changes | {"projector": projector})
    return found


def tokens_seen(model: MultimodalLM) -> tuple[int, int]:
    """Visual tokens in the first and in the last decoder layer of a prefill."""
    text, lengths = WORKLOAD.prompt_tokens, []
    layers = model.decoder.layers
    hooks = [
        part.register_forward_hook(lambda _module, inputs, _output: lengths.append(inputs[0].shape[1]))
        for part in (layers[0].self_attn.q_proj, layers[-1].self_attn.q_proj)
    ]
    lm = model.language_spec
    ids = torch.tensor([[lm.image_token_id] * model.visual_tokens + [lm.vocab - 1] * text])
    with torch.inference_mode():
        model(input_ids=ids, pixel_values=torch.randn(1, 3, model.candidate.resolution, model.candidate.resolution))
    for hook in hooks:
        hook.remove()
    return lengths[0] - text, lengths[-1] - text


def rows(chosen: dict[str, Candidate]) -> dict[str, dict[str, Any]]:
    """Measured in one session."""
    blocks = list({block.key: block for one in chosen.values() for block in needed(one, WORKLOAD)}.values())
    profile = hardware_profiles.load("local")
    profile = profile.model_copy(update={"protocol": profile.protocol.model_copy(update={"rounds": ROUNDS})})
    with TemporaryDirectory() as folder, closing(Store(f"sqlite:///{folder}/compression.db")) as store:
        device = Device(profile, store)
        found, between = device.requests_and_blocks(chosen, WORKLOAD, blocks)
        timings = device.known(blocks, between)
    with measuring(1, 0):
        return {
            name: {
                "tokens": tokens_seen(build(candidate, weights="random")),
                "gflops": cost(candidate, WORKLOAD).flops / 1e9,
                "none": found["none"].latency.to_dict(),
                "measured": found[name].latency.to_dict(),
                "composed": compose(candidate, WORKLOAD, timings).to_dict(),
            }
            for name, candidate in chosen.items()
        }


def line(name: str, row: dict[str, Any]) -> str:
    first, last = row["tokens"]
    seen, none = row["measured"], row["none"]
    parts = seen["parts"]
    vision = parts["vision_ms"] + parts["projector_ms"]
    metrics = ("ttft_ms", "latency_ms")
    speed = [none[metric] / seen[metric] for metric in metrics]
    error = [f"{row['composed'][metric] / seen[metric] - 1:+.1%}" if "composed" in row else "" for metric in metrics]
    return (
        f"| {name} | {first} | {last} | {row['gflops']:.1f} | {vision:.1f} | {parts['prefill_ms']:.1f} | "
        f"{seen['ttft_ms']:.1f} | {speed[0]:.2f} | {error[0]} | {seen['latency_ms']:.1f} | {speed[1]:.2f} | {error[1]} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    every = designs()
    parser.add_argument("--only", nargs="*", default=list(every), help="rows; none = print what is kept")
    parser.add_argument("--kept", type=Path, default=Path(__file__).with_suffix(".json"), help="rows of every run")
    arguments = parser.parse_args()
    kept: dict[str, Any] = json.loads(arguments.kept.read_text()) if arguments.kept.exists() else {}
    if arguments.only:
        kept |= rows({name: every[name] for name in ["none", *arguments.only]})
        arguments.kept.write_text(json.dumps(kept, indent=1))
    columns = (
        "compression", "tokens in the first layer", "in the last", "GFLOPs to the first token", "vision + projector ms",
        "prefill ms", "TTFT ms", "speed-up", "composed", "whole answer ms", "speed-up", "composed",
    )  # fmt: skip
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name in (name for name in every if name in kept):
        print(line(name, kept[name]))


if __name__ == "__main__":
    main()
