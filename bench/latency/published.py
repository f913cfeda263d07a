"""Published measurements as phases of work on datasheets: rows of latency_published.csv with devices.yaml and models.yaml."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

import nas.workload
import search_spaces
from nas.latency.estimate import Setting, phase_works
from nas.latency.shares import Datasheet, PhaseWork

HERE = Path(__file__).parent
# Bytes of a weight as stored, block-quantised formats with their scales; first pattern found in the row's dtype.
WEIGHT_BYTES = (
    (r"Q8_0", 1.06), (r"Q6_K", 0.82), (r"Q5", 0.69), (r"Q4_K", 0.6), (r"Q4|IQ4", 0.56), (r"Q3", 0.43), (r"Q2|w2", 0.31),
    (r"w3", 0.44), (r"w4|int4|awq", 0.56), (r"w8|int8|INT8", 1.03), (r"(?i)fp8", 1.0), (r"(?i)bf16|fp16|f16", 2.0), (r"(?i)fp32|f32", 4.0),
)  # fmt: skip
UNIT_OF_RUNTIME = (
    (r"NPU|Core ML|CoreML|\bANE\b|QNN", "npu"), (r"CPU|XNNPACK", "cpu"),
    (r"GPU|CUDA|Vulkan|OpenCL|Metal|ROCm|TensorRT|TinyChat", "gpu"),
)  # fmt: skip
RUNTIME_FAMILIES = (
    (r"Vulkan|OpenCL", "portable"), (r"(?i)llama\.?cpp|ollama|cactus|mllm", "llama.cpp"), (r"eager|HF transformers|fp16 baseline", "eager"),
    (r".", "compiled"),
)  # fmt: skip
MILLISECONDS = ("ms", "ms/token", "ms mean", "ms median")


@dataclass(frozen=True)
class Row:
    """One published value: what ran, on which hardware, and how long it took."""

    device: str  # hardware, the same for all its labels
    label: str
    kind: str  # class as published: gpu, apple_gpu, edge_gpu, phone, cpu
    model: str
    runtime: str
    work: PhaseWork
    sheet: Datasheet
    ms: float


@cache
def _entries(file: Path) -> list[dict]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def find(text: str, file: str) -> dict | None:
    """The first entry of a YAML list whose pattern the text holds."""
    return next((entry for entry in _entries(HERE / file) if re.search(entry["match"], text)), None)


def first(patterns: tuple, text: str):
    return next((value for pattern, value in patterns if re.search(pattern, text)), None)


def rows(file: Path) -> tuple[list[Row], dict[str, int]]:
    """Rows that estimates can be compared with, and how many others were left out and why."""
    found, skipped = [], defaultdict(int)
    with file.open(encoding="utf-8") as lines:
        for fields in csv.DictReader(lines):
            row = _row(fields)
            if isinstance(row, str):
                skipped[row] += 1
            else:
                found.append(row)
    return found, dict(skipped)


def _row(fields: dict[str, str]) -> Row | str:
    entry, size = find(fields["device"], "devices.yaml"), first(WEIGHT_BYTES, fields["dtype"])
    if fields["quality"] == "suspect":
        return "marked suspect"
    if fields["phase"] not in ("vision", "prefill", "decode"):
        return f"phase {fields['phase']}"
    if entry is None:
        return f"no datasheet figures: {fields['device']}"
    if "unknown" in entry:
        return f"board not named: {fields['device']}"
    if size is None:
        return f"format of weights: {fields['dtype']}"
    unit = first(UNIT_OF_RUNTIME, fields["runtime"]) or entry["unit"]
    work = _work(fields, size, unit, entry)
    sheet = _sheet(fields, unit, entry, work) if isinstance(work, PhaseWork) else work
    if isinstance(work, str) or isinstance(sheet, str):
        return work if isinstance(work, str) else sheet
    return Row(
        entry.get("device", entry["match"]), fields["device"], entry["class"], fields["model"], fields["runtime"],
        work, sheet, _milliseconds(fields, work),
    )  # fmt: skip


def _work(fields: dict[str, str], size: float, unit: str, entry: dict) -> PhaseWork | str:
    batch = float(fields["batch"] or 1)
    common = {
        "weight_bits": 8 * size,
        "runtime": first(RUNTIME_FAMILIES, fields["runtime"]) if fields["runtime"] != "not stated" else "",
    }
    threads = re.search(r"(\d+) threads", fields["runtime"])
    cores = entry.get("cpu", {}).get("cores")
    if unit == "cpu" and threads and cores:
        common["threads_share"] = min(1.0, float(threads[1]) / cores)
    if fields["phase"] == "vision":
        return _vision(fields, size, batch, common)
    if not fields["params"]:
        return "size of model"
    params = float(fields["params"])
    if fields["phase"] == "decode":
        return PhaseWork("decode", 2 * params * batch, params * size, 0.0, batch, **common)
    if not fields["input_len"] and fields["unit"] != "tok/s":
        return "length of the prompt"
    tokens = batch * float(fields["input_len"] or 512)
    return PhaseWork("prefill", 2 * params * tokens, params * size, 0.0, tokens, **common)


def _vision(fields: dict[str, str], size: float, batch: float, common: dict) -> PhaseWork | str:
    model = find(fields["model"], "models.yaml")
    if model is None or not fields["params"]:
        return f"work of vision model: {fields['model']}"
    pixels = (float(fields["input_len"] or model["at"]) / model["at"]) ** 2
    value_bytes = 4 if size == 4 else 1 if size <= 1.03 else 2
    return PhaseWork(
        "vision", 2e9 * model["gmacs"] * pixels * batch, float(fields["params"]) * size,
        2 * value_bytes * 1e6 * model["macts"] * pixels * batch, 196 * pixels * batch,
        convolves=model["family"] == "cnn", **common,
    )  # fmt: skip


def _sheet(fields: dict[str, str], unit: str, entry: dict, work: PhaseWork) -> Datasheet | str:
    peaks = entry.get(unit)
    if peaks is None:
        return f"peak of its {unit}: {fields['device']}"
    eight = re.search(r"w8a8|int8|INT8", fields["dtype"]) and work.phase == "vision"
    names = ("fp32",) if unit == "cpu" else ("int8", "fp16") if eight else ("fp16", "fp32")
    peak = next((peaks[name] for name in names if name in peaks), None)
    if peak is None:
        return f"peak of its {unit}: {fields['device']}"
    apple = re.search(r"Apple|iPhone|iPad|\bM\d\b", fields["device"])
    board = {"gpu": entry["class"], "cpu": "phone_cpu" if entry["class"] == "phone" else "cpu", "npu": "npu"}[unit]
    kind = f"apple_{unit}" if apple else "integrated_gpu" if board == "phone" else board
    return Datasheet(kind, 1e12 * peak, 1e9 * entry["gbps"])


def _milliseconds(fields: dict[str, str], work: PhaseWork) -> float:
    value = float(fields["value"])
    if fields["unit"] in MILLISECONDS:
        return value
    batch = float(fields["batch"] or 1)
    units = batch if work.phase in ("vision", "decode") else work.tokens
    return 1e3 * units / value


def measured_here() -> list[Row]:
    """Phases of the whole requests in measured_here.yaml; the vision part holds the small projector too."""
    known = yaml.safe_load((HERE / "measured_here.yaml").read_text(encoding="utf-8"))
    candidate = search_spaces.load("pocket").baseline_candidate.model_copy(update=known["candidate"])
    sheet = Datasheet(known["kind"], 1e12 * known["fp32_tflops"]["value"], 1e9 * known["gbps"]["value"])
    found = []
    for request in known["requests"]:
        works = phase_works(candidate, nas.workload.load("vqa-short"), Setting(request["runtime"], request["dtype"]))
        for part in ("vision_ms", "prefill_ms", "tpot_ms"):
            found.append(
                Row(
                    known["device"],
                    known["device"],
                    known["kind"],
                    str(candidate),
                    request["runtime"],
                    works[part],
                    sheet,
                    request[part],
                )
            )
    return found
