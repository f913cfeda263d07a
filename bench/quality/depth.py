"""Which layers of SmolLM2-135M stay when its depth is cut: perplexity before and after a short healing run.

python bench/quality/depth.py orders              the removal orders of the catalogue, from calibration text
python bench/quality/depth.py heal --out FILE     a row a (rule, depth), resumable; then the table

Text: the language reference that ships with CPython (pydoc_data.topics), split by topic into calibration, healing and
held-out parts; the descriptions of scikit-learn's data sets as a second, foreign held-out text.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from importlib import resources
from pathlib import Path
from pydoc_data.topics import topics

import torch
from transformers import LlamaForCausalLM

from nas.depth import kept_layers
from nas.model.language import language_config
from nas.model.layer_order import calibration_order, influence_order
from nas.model.pretrained import tokenizer, weights
from nas.train.packing import bfloat16_is_fast
from search_spaces.catalogue import language_model

NAME = "smollm2-135m"
LENGTH = 128
RULES, DEPTHS = ("first", "uniform", "influence", "calibration"), (26, 20, 14, 8)
STEPS, BATCH, RATE, WARM_UP = 40, 8, 2e-4, 4


def texts() -> dict[str, torch.Tensor]:
    """(sequences, 128) token ids by part; topics go to parts by their place in the alphabet."""
    encode = tokenizer("smollm2")
    parts: dict[str, list[str]] = {"calibration": [], "healing": [], "held out": []}
    for place, name in enumerate(sorted(topics)):
        part = "held out" if place % 5 == 0 else "calibration" if place % 5 == 1 else "healing"
        parts[part].append(topics[name])
    described = resources.files("sklearn.datasets.descr")
    parts["foreign"] = [
        file.read_text(encoding="utf-8") for file in sorted(described.iterdir(), key=str) if file.name.endswith(".rst")
    ]
    found = {}
    for part, pieces in parts.items():
        ids = torch.tensor(encode("\n\n".join(pieces))["input_ids"])
        found[part] = ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)
    return found


def whole() -> LlamaForCausalLM:
    """The model with all of its layers."""
    return cut(list(range(language_model(NAME).layers)))


def cut(kept: list[int]) -> LlamaForCausalLM:
    """The model with the layers `kept` of the file."""
    from safetensors.torch import load_file

    stored = load_file(weights(NAME))
    decoder = LlamaForCausalLM(language_config(language_model(NAME), kept))
    names = dict(enumerate(kept))
    state = {}
    for name in decoder.state_dict():
        parts = name.split(".")
        if parts[:2] == ["model", "layers"]:
            parts[2] = str(names[int(parts[2])])
        if name != "lm_head.weight":
            state[name] = stored[".".join(parts)]
    decoder.load_state_dict(state, strict=False)
    decoder.tie_weights()
    return decoder.eval()


def perplexity(decoder: LlamaForCausalLM, ids: torch.Tensor) -> float:
    """Of sequences of 128 tokens, each alone."""
    with torch.inference_mode():
        losses = [float(decoder(input_ids=batch, labels=batch, use_cache=False).loss) for batch in ids.split(8)]
    return math.exp(sum(losses) / len(losses))


def heal(decoder: LlamaForCausalLM, ids: torch.Tensor) -> float:
    """Seconds of a short run of AdamW over all layers; the vocabulary stays as it is."""
    started = time.monotonic()
    decoder.train()
    decoder.get_input_embeddings().weight.requires_grad_(False)
    learned = [weight for weight in decoder.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=RATE, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min((step + 1) / WARM_UP, (STEPS - step) / (STEPS - WARM_UP))
        batch = ids[torch.randint(len(ids), (BATCH,), generator=generator)]
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_is_fast()):
            loss = decoder(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    decoder.eval()
    return time.monotonic() - started


def run(out: Path) -> None:
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = {(row["rule"], row["depth"]) for row in rows}
    parts = texts()
    held = {part: parts[part][:32] for part in ("held out", "foreign")}
    layers = language_model(NAME).layers
    known = [rule for rule in RULES if rule in ("uniform", "first", *language_model(NAME).layer_orders)]
    for depth in (layers, *DEPTHS):
        for rule in ("uniform",) if depth == layers else known:
            if (rule, depth) in done:
                continue
            kept = kept_layers(rule, language_model(NAME), depth)
            decoder = cut(kept)
            row = {
                "rule": rule,
                "depth": depth,
                "kept": kept,
                "before": {p: perplexity(decoder, ids) for p, ids in held.items()},
            }
            row["seconds"] = heal(decoder, parts["healing"])
            row["after"] = {part: perplexity(decoder, ids) for part, ids in held.items()}
            with out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            rows.append(row)
            print(json.dumps(row), flush=True)
    table(rows)


def table(rows: list[dict]) -> None:
    print(f"{'layers':>6} {'rule':12} {'held out':>10} {'healed':>8} {'foreign':>10} {'healed':>8}")
    for row in sorted(rows, key=lambda row: (-row["depth"], RULES.index(row["rule"]))):
        figures = [row[when][part] for part in ("held out", "foreign") for when in ("before", "after")]
        print(
            f"{row['depth']:>6} {row['rule']:12} {figures[0]:>10.4g} {figures[1]:>8.4g} {figures[2]:>10.4g} {figures[3]:>8.4g}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["orders", "heal"])
    parser.add_argument("--out", type=Path, default=Path("bench/quality/depth.jsonl"))
    asked = parser.parse_args()
    if asked.what == "orders":
        sample = texts()["calibration"]
        print("    influence:", influence_order(whole(), sample[:12]))
        print("    calibration:", calibration_order(whole(), sample[:4]))  # 464 passes
    else:
        run(asked.out)
