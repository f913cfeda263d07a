"""What narrow weights, narrow caches, experts and FastV do to time and memory on this machine, against their closed form.

    python bench/language/structures.py --lm smollm2-135m --depth 6 --prompt 300 --rounds 15

Random weights, float32 activations, batch 1. Variants take turns in every round, the minimum of each is printed; all ratios
are to `native`. Memory is that of tensors that the model and its cache really hold.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from nas import cost_language
from nas.model import MultimodalLM, build
from search_spaces import Candidate

BASE: dict[str, Any] = {
    "encoder": "vit-micro", "resolution": 256, "projector": "mlp", "compression": "none", "compression_factor": 1,
}  # fmt: skip


def variants(lm: str, depth: int) -> dict[str, Candidate]:
    """One change each."""
    changes: dict[str, dict[str, Any]] = {
        "native": {}, "weights int8": {"lm_weights": "int8"}, "weights int4": {"lm_weights": "int4"},
        "cache bf16": {"kv_cache": "bf16"}, "cache int8": {"kv_cache": "int8"}, "attention eager": {"attention": "eager"},
        "4 experts": {"lm_experts": 4},
        "fastv 1/4 after layer 2": {"compression": "fastv", "compression_factor": 4, "prune_layer": 2},
    }  # fmt: skip
    return {name: Candidate(**{**BASE, "lm": lm, "lm_depth": depth, **change}) for name, change in changes.items()}


def timed(model: MultimodalLM, ids: torch.Tensor, features: torch.Tensor) -> tuple[float, float, int]:
    """(prefill ms, decode step ms, bytes of the cache)."""
    with torch.inference_mode():
        start = time.perf_counter()
        found = model(input_ids=ids, vision_features=features, use_cache=True, logits_to_keep=1)
        prefill = time.perf_counter() - start
        cache = found.past_key_values
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        steps = []
        for _ in range(4):
            start = time.perf_counter()
            model(input_ids=ids[:, :1] * 0 + 9, past_key_values=cache, use_cache=True)
            steps.append(time.perf_counter() - start)
    return prefill * 1000, min(steps) * 1000, held


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lm", default="smollm2-135m")
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--prompt", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    designs = variants(options.lm, options.depth)
    models = {name: build(design, weights="random") for name, design in designs.items()}
    native = models["native"]
    ids = torch.full((1, options.prompt), 9)
    ids[:, 1 : 1 + native.visual_tokens] = native.language_spec.image_token_id
    features = native.vision_tokens(torch.zeros(1, 3, 256, 256)).detach()
    best: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, model in models.items():
            found = timed(model, ids, features)
            before = best.get(name, list(found))
            best[name] = [min(pair) for pair in zip(before, found, strict=True)]
    print(
        f"{options.lm} x{options.depth}, prompt {options.prompt}, {torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )
    print("| variant | prefill ms | ratio | decode ms | ratio | layer weights MB | closed form MB | cache kB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (prefill, step, held) in best.items():
        model, stack = models[name], cost_language.layers(designs[name])
        body = [t for n, t in model.language_model.state_dict().items() if "embed" not in n and "lm_head" not in n]
        closed = cost_language.body_bytes(model.language_spec, stack, designs[name].lm_weights)
        print(
            f"| {name} | {prefill:.1f} | {prefill / best['native'][0]:.2f} | {step:.2f} | {step / best['native'][1]:.2f} "
            f"| {sum(t.nbytes for t in body) / 1e6:.2f} | {closed / 1e6:.2f} | {held / 1e3:.0f} |"
        )


if __name__ == "__main__":
    main()
