"""Every encoder and language model of the catalogue, built at random, counted, run forward and to three new tokens.

    python bench/space/parts.py [NAME]...

Encoders stand in front of one layer of `llama-micro`, language models behind `vit-micro`, cut to one period of layers.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

import nas.workload
from nas.cost import cost
from nas.model import build
from nas.quality.score import probe_batch
from search_spaces import Candidate, catalogue

PLAIN = {"projector": "mlp", "compression": "none", "compression_factor": 1}
SOUND_FRAMES, PIXELS = 500, 112


def designs() -> dict[str, dict[str, Any]]:
    """The smallest design that holds each part."""
    found: dict[str, dict[str, Any]] = {}
    for name, spec in catalogue.encoders().items():
        side = SOUND_FRAMES if spec.mels else spec.stride * max(2, PIXELS // spec.stride)
        found[name] = {"encoder": name, "resolution": side, "lm": "llama-micro", "lm_depth": 1}
    for name, model in catalogue.language_models().items():
        depth = len(model.layer_pattern) if len(set(model.layer_pattern)) > 1 else 1
        found[name] = {"encoder": "vit-micro", "resolution": 64, "lm": name, "lm_depth": min(depth, model.layers)}
    return found


def line(fields: dict[str, Any]) -> str:
    """What is counted in closed form and in the built model, and whether it runs."""
    candidate = Candidate.model_validate({**PLAIN, **fields})
    model = build(candidate, weights="random")
    batch = probe_batch(model, 0)
    ids, pixels = batch.input_ids[:1], batch.pixel_values[:1]
    with torch.inference_mode():
        logits = model(input_ids=ids, pixel_values=pixels).logits
        said = model.generate(
            input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False
        )
    paid = cost(candidate, nas.workload.of_encoder(candidate.encoder)).params
    equal = "equal" if paid == model.num_parameters() else f"DIFFERS from {model.num_parameters():,}"
    runs = "runs" if torch.isfinite(logits).all() and said.shape[1] > ids.shape[1] else "FAILS"
    return f"{candidate}: {paid:,} parameters, {equal}; {runs}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    asked = parser.parse_args().names
    for name, fields in designs().items():
        if not asked or name in asked:
            print(line(fields), flush=True)


if __name__ == "__main__":
    main()
