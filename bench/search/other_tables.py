"""Samplers on tables that the funnel was not made on: `python bench/search/other_tables.py [DATA]`.

DATA (default ../shared/data) holds FlexiBERT (GLUE against parameters; Tuli et al. 2022, arXiv 2205.11656), LTS
(perplexity of GPT-2 on WikiText-103 against parameters; Javaheripi et al. 2022, arXiv 2203.02094) and AutoFormer (CIFAR-100
after distillation against parameters of the blocks; ViT-Bench-101, arXiv 2312.09059), as published. Per-layer lists become
counts and means; of designs that are then alike the first stays.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from replay import show

from nas.search.replay import compare
from nas.search.table import read


def flexibert(data: Path) -> Iterator[dict[str, float]]:
    with (data / "flexibert/BERT_results_activation.csv").open(encoding="utf-8") as opened:
        params = {int(row["ID"]): float(row["Number of Parameters"]) for row in csv.DictReader(opened)}
    for row in json.loads((data / "flexibert/BERT_benchmark.json").read_text(encoding="utf-8")):
        design, glue = row["hparams"]["model_hparam_overrides"], row["scores"].get("glue")
        if row["id"] not in params or glue is None:
            continue
        layers = design["nas_config"]["encoder_layers"]
        kinds = {kind: sum(layer["operation_type"] == kind for layer in layers) for kind in ("SA", "LT", "DSC")}
        yield {
            "glue": glue, "params": params[row["id"]], "hidden": design["hidden_size"], "layers": len(layers), **kinds,
            "ffn": float(np.mean([layer["feed_forward_dimension"] for layer in layers])),
            "heads": sum(layer.get("num_operation_heads", 0) for layer in layers),
        }  # fmt: skip


def lts(data: Path) -> Iterator[dict[str, float]]:
    for line in (data / "lts/random_GPT2_wt103.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        one = row["config"]
        yield {
            "ppl": row["ppl"]["valid_ppl"], "params": row["params"]["total"], "layers": one["n_layer"],
            "width": one["d_model"], "embedding": one["d_embed"], "adaptive": one["div_val"],
            "ffn": float(np.mean(one["d_inner"])), "heads": float(np.mean(one["n_head"])),
        }  # fmt: skip


def autoformer(data: Path) -> Iterator[dict[str, float]]:
    for line in (data / "vitbench101/gt_autoformer.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        one = row["arch"]
        width, heads, ratios = one["hidden_dim"], one["num_heads"], one["mlp_ratio"]
        params = sum(4 * width * 64 * head + 2 * width**2 * ratio for head, ratio in zip(heads, ratios, strict=True))
        yield {
            "accuracy": row["c100_kd_acc"], "params": params, "width": width, "layers": one["depth"],
            "ffn": float(np.mean(ratios)), "heads": float(np.mean(heads)),
        }  # fmt: skip


def main() -> None:
    data = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    with tempfile.TemporaryDirectory() as folder:
        for name, of in (("FlexiBERT", flexibert), ("LTS", lts), ("AutoFormer", autoformer)):
            rows = list(of(data))
            file = Path(folder) / f"{name}.csv"
            with file.open("w", encoding="utf-8", newline="") as opened:
                writer = csv.DictWriter(opened, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            table = read(file, list(rows[0])[:2], list(rows[0])[2:])
            most = [budget for budget in (25, 50, 100, 200) if budget < table.size]
            show(f"{name}, {table.size} designs", compare(table, ["tpe", "nsga2", "funnel"], most)["results"])


if __name__ == "__main__":
    main()
