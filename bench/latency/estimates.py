"""Estimates against published measurements: `python bench/latency/estimates.py --published CSV --timm CSV`.

Prints, per class of device, the share of published values inside the 80 % interval, the median absolute error, and the
rank correlation within a device; once with the shipped shares and once with shares refitted without the device. Then
the calibrated model on a table of timm: 20 models measured, all others predicted.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import yaml
from scipy.stats import spearmanr

from nas.latency.calibrated import fit, left_out, solve, spread
from nas.latency.roofline import REACHED, Reached, Span, span_ms

HERE = Path(__file__).parent
# Bytes of a weight as stored; block-quantised formats with their scales.
WEIGHT_BYTES = {
    "fp16": 2, "F16": 2, "BF16": 2, "bf16": 2, "fp16 (not stated)": 2, "Q8_0": 1.06, "int8": 1.03, "w8a8": 1.03,
    "int8 (not stated)": 1.03, "Q6_K": 0.82, "Q5_0": 0.69, "Q4_K_XL": 0.62, "Q4_K_M": 0.6, "Q4_K": 0.6,
    "Q4_K_M (tool default, assumed)": 0.6, "Q4_K_S": 0.58, "Q4_K - Small": 0.58, "Q4_0": 0.56, "int4": 0.56,
    "int4 (not stated)": 0.56, "int4-awq": 0.56, "w4": 0.56, "w4a16": 0.56, "w4a8": 0.56, "w4a8 g128": 0.56,
    "w4a8 g256": 0.56, "w4a8 SpinQuant": 0.56, "w4a8 QAT+LoRA": 0.56, "w2": 0.31,
}  # fmt: skip


def rows(file: Path, devices: dict) -> tuple[list[dict], dict[str, int]]:
    """Published decode and prefill rows as work and milliseconds; and why the others were left out."""
    found, skipped = [], defaultdict(int)
    for row in csv.DictReader(file.open(encoding="utf-8")):
        device, size = devices.get(row["device"]), WEIGHT_BYTES.get(row["dtype"])
        reason = (
            "suspect" if row["quality"] == "suspect" else "phase not decode or prefill"
            if row["phase"] not in ("decode", "prefill") else "device without datasheet figures" if device is None
            else "format of weights unknown" if size is None else "size of model unknown" if not row["params"]
            else "batch above 1" if row["batch"] not in ("", "1", "1.0") else None
        )  # fmt: skip
        if reason is None and row["phase"] == "prefill" and not device["fp16"]:
            reason = "device without a peak"
        if reason is None and row["phase"] == "prefill" and row["unit"] != "tok/s" and not row["input_len"]:
            reason = "length unknown"
        if reason:
            skipped[reason] += 1
            continue
        params, value = float(row["params"]), float(row["value"])
        length = float(row["input_len"]) if row["input_len"] else 512.0
        tokens = 1.0 if row["phase"] == "decode" else length
        ms = 1e3 * tokens / value if row["unit"] == "tok/s" else value
        found.append({"device": row["device"], "kind": device["kind"], "phase": row["phase"], "ms": ms,
                      "flops": 2 * params * tokens, "bytes": params * size, "rows": tokens,
                      "rate": (1e12 * (device["fp16"] or 1e6), 1e9 * device["gbps"])})  # fmt: skip
    return found, dict(skipped)


def refitted(known: list[dict], kind: str) -> Reached:
    """Shares as the 10th, 50th and 90th percentile of what the rows of a class reach."""
    shares = {}
    for phase, name in (("prefill", "compute"), ("decode", "memory")):
        own = [r for r in known if r["kind"] == kind and r["phase"] == phase]
        work, rate = ("flops", 0) if phase == "prefill" else ("bytes", 1)
        reached = [r[work] / r["rate"][rate] / (r["ms"] / 1e3) for r in own]
        fallback = getattr(REACHED[kind], name)
        shares[name] = Span(*np.quantile(reached, [0.1, 0.5, 0.9])) if len(reached) >= 5 else fallback
    return Reached(**shares)


def report(known: list[dict], shares_of) -> None:
    print("| class | phase | rows | devices | inside 80 % interval | median abs. error | Spearman within a device |")
    print("|---|---|---|---|---|---|---|")
    for kind in REACHED:
        for phase in ("decode", "prefill"):
            own = [row for row in known if row["kind"] == kind and row["phase"] == phase]
            if not own:
                continue
            spans = [span_ms(r["flops"], r["bytes"], r["rows"], r["rate"], shares_of(r)) for r in own]
            inside = [span.best <= row["ms"] <= span.worst for span, row in zip(spans, own, strict=True)]
            error = [abs(span.middle / row["ms"] - 1) for span, row in zip(spans, own, strict=True)]
            ranks = []
            for device in {row["device"] for row in own}:
                pairs = [(s.middle, r["ms"]) for s, r in zip(spans, own, strict=True) if r["device"] == device]
                if len(pairs) >= 4 and len({a for a, _ in pairs}) > 1:
                    ranks.append(spearmanr(*zip(*pairs, strict=True))[0])
            rank = f"{np.median(ranks):.2f} ({len(ranks)} devices)" if ranks else "too few rows"
            count = f"{len(own)} | {len({row['device'] for row in own})}"
            print(f"| {kind} | {phase} | {count} | {np.mean(inside):.0%} | {np.median(error):.0%} | {rank} |")


def timm_table(file: Path) -> None:
    """The calibrated model of the product on GMACs, activations and parameters."""
    table = [r for r in csv.DictReader(file.open(encoding="utf-8")) if r["infer_gmacs"] and r["infer_macts"]]
    table = [row for row in table if float(row["infer_step_time"]) > 0]
    x = np.array([[1.0, *(float(r[k]) for k in ("infer_gmacs", "infer_macts", "param_count"))] for r in table])
    batch = np.array([float(row["infer_batch_size"]) for row in table])
    times = np.array([float(row["infer_step_time"]) for row in table]) / batch
    names = ["one", "gmacs", "macts", "params"]

    def outcome(chosen: list[int]) -> tuple[float, float, float]:
        model = fit(names, x[chosen], times[chosen])
        rest = np.setdiff1d(np.arange(len(times)), chosen)
        found = model.predict(x[rest])
        value = np.array([p.value for p in found])
        inside = np.mean([p.low <= t <= p.high for p, t in zip(found, times[rest], strict=True)])
        return float(np.median(np.abs(value / times[rest] - 1))), float(spearmanr(value, times[rest])[0]), float(inside)

    print(f"\n{file.name}: {len(table)} models, 20 of them measured\n")
    print("| the 20 | median abs. error | Spearman | inside 80 % interval |")
    print("|---|---|---|---|")
    print("| spread (the product's rule) | {:.1%} | {:.3f} | {:.0%} |".format(*outcome(spread(x[:, 1:], 20))))
    draws = [outcome(list(np.random.default_rng(s).choice(len(times), 20, replace=False))) for s in range(50)]
    print("| 50 random draws, median | {:.1%} | {:.3f} | {:.0%} |".format(*np.median(draws, axis=0)))
    errors, ranks, shares = zip(*draws, strict=True)
    print(f"| 50 random draws, worst | {max(errors):.1%} | {min(ranks):.3f} | {min(shares):.0%} |")
    every = x @ solve(x, times)
    print(f"\nfitted to all models (the floor of this form): {np.median(np.abs(every / times - 1)):.1%}")
    assert len(left_out(x[:20], times[:20])) == 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--published", type=Path, required=True)
    parser.add_argument("--timm", type=Path, nargs="*", default=[])
    asked = parser.parse_args()
    devices = yaml.safe_load((HERE / "devices.yaml").read_text(encoding="utf-8"))
    known, skipped = rows(asked.published, devices)
    print(f"{len(known)} rows; left out: {skipped}\n\nShipped shares:\n")
    report(known, lambda row: REACHED[row["kind"]])
    print("\nShares refitted without the device that is estimated:\n")
    report(known, lambda row: refitted([r for r in known if r["device"] != row["device"]], row["kind"]))
    for file in asked.timm:
        timm_table(file)


if __name__ == "__main__":
    main()
