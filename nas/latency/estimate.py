"""Latency on a device that is not at hand: an interval with a middle, never a measurement.

`estimated:calibrated` where `nas devices calibrate --points` has measured some blocks on the device, else
`estimated:datasheet`: the roofline of the whole phase over the share that published runs of such devices reach
(`nas.latency.shares`). No torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hardware_profiles import HardwareProfile
from hardware_profiles.profile import Estimator
from nas.cache_folder import cache_folder
from nas.cost_cross import CrossStack
from nas.cost_request import RequestTokens
from nas.latency.amounts import amounts
from nas.latency.blocks import BlockSpec, Terms, changed_axes
from nas.latency.calibrated import CalibratedModel, Prediction
from nas.latency.decoder_terms import DECODER_AXES
from nas.latency.roofline import datasheet, own_share
from nas.latency.shares import LEAST_MS, NORMAL_80, Estimate, PhaseName, PhaseWork, RuntimeFamily, roofline_ms, shipped
from nas.latency.terms import check_runs, seen_terms
from nas.latency.work import Work, block_work, features
from nas.records import Latency, request_ms
from nas.workload import Workload
from search_spaces import Candidate
from search_spaces.catalogue import encoder

# Decoding a photo of 640 x 480 and shrinking it happens on a CPU that no profile describes: 1.2 to 20 ms, assumed;
# the spectrogram of half a minute of sound as well.
PREPROCESS = Estimate(5.0, 1.1)
# Starting one kernel of an eager framework: 2.5 to 20 microseconds, assumed. Published runs of such frameworks are of
# models so large that it does not show.
LAUNCH = Estimate(7e-3, 0.8)
# torch-compile multiplies by the same library as torch-eager: 21.8 and 21.3 ms a token where ONNX Runtime takes 7.7.
RUNTIME_FAMILIES: dict[str, RuntimeFamily] = {
    "torch-eager": "eager", "torch-compile": "eager", "onnxruntime": "compiled", "openvino": "compiled",
}  # fmt: skip
WEIGHT_BITS = {"fp32": 32, "bf16": 16, "fp16": 16, "int8": 8}
PARTS: dict[str, PhaseName] = {
    "vision_ms": "vision", "projector_ms": "vision", "prefill_ms": "prefill", "tpot_ms": "decode",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setting:
    """What a device runs the model with."""

    runtime: str = "torch-eager"
    dtype: str = "fp32"


def estimate(
    candidate: Candidate,
    workload: Workload,
    profile: HardwareProfile,
    model: CalibratedModel | None = None,
    setting: Setting | None = None,
) -> Latency:
    """By `model`, which `known_calibration` gives where there is one, else by the datasheet.

    Raises: ProfileError when the profile lacks the peak of the dtype or the bandwidth.
    """
    if model is not None:
        return _calibrated(candidate, workload, model)
    return _datasheet(candidate, workload, profile, setting or Setting())


def calibration_file(device: str) -> Path:
    """Where the coefficients of a device are kept."""
    return cache_folder() / "calibrations" / f"{device}.json"


def known_calibration(device: str) -> CalibratedModel | None:
    """What `nas devices calibrate --points` has left; None where it never ran."""
    file = calibration_file(device)
    return CalibratedModel.from_json(file.read_text(encoding="utf-8")) if file.is_file() else None


def _blocks(candidate: Candidate, workload: Workload) -> Mapping[str, Terms]:
    """By part: (how often, block), at the candidate's own lengths."""
    check_runs(candidate, workload, "torch-eager")
    found = amounts(candidate, workload)
    return _occurring(seen_terms(candidate, workload, found) | _language_terms(candidate, workload, found))


def _occurring(blocks: Mapping[str, Terms]) -> dict[str, Terms]:
    """A block that occurs 0 times is none."""
    return {part: [term for term in several if term[0]] for part, several in blocks.items()}


def _language_terms(candidate: Candidate, workload: Workload, found: RequestTokens[int]) -> dict[str, Terms]:
    """Prefill and decode step."""
    batch, lm, axes = workload.batch, candidate.lm, changed_axes(candidate, *DECODER_AXES)
    late = candidate.lm_depth - candidate.prune_layer if found.dropped else 0
    crossing = float(CrossStack(0, candidate.lm_depth * candidate.crosses).count)
    prefill = BlockSpec("layer_prefill", batch, lm=lm, past=found.past, axes=axes)
    decode = BlockSpec("layer_decode", batch, lm=lm, axes=axes)
    whole, rest = float(candidate.lm_depth - late), float(late)
    short, kept = found.prompt - found.dropped, found.context - found.dropped
    crossed = BlockSpec("cross_prefill", batch, lm=lm, length=workload.prompt_tokens, depth=1, visual=found.visual)
    return {
        "prefill_ms": [
            (1.0, BlockSpec("shell_prefill", batch, lm=lm, length=found.prompt)),
            (whole, replace(prefill, length=found.prompt)),
            (rest, replace(prefill, length=short)),
            (crossing, crossed),
        ],
        "tpot_ms": [
            (1.0, BlockSpec("shell_decode", batch, lm=lm, length=1)),
            (whole, replace(decode, length=found.context)),
            (rest, replace(decode, length=kept)),
            (crossing, replace(crossed, kind="cross_decode", length=1)),
        ],
    }


def _calibrated(candidate: Candidate, workload: Workload, model: CalibratedModel) -> Latency:
    parts: dict[str, float] = {}
    outside = False
    for name, blocks in _blocks(candidate, workload).items():
        found: list[tuple[float, Prediction]] = [
            (count, model.predict([features(block)])[0]) for count, block in blocks
        ]
        parts[name] = sum(count * prediction.value for count, prediction in found)
        outside = outside or any(prediction.extrapolated for _, prediction in found)
    total = request_ms(parts, workload.new_tokens)
    return Latency(
        **parts, new_tokens=workload.new_tokens, label="estimated:calibrated",
        low_ms=total * model.low_ratio, high_ms=total * model.high_ratio, extrapolated=outside,
    )  # fmt: skip


def _datasheet(candidate: Candidate, workload: Workload, profile: HardwareProfile, setting: Setting) -> Latency:
    sheet = datasheet(profile, setting.dtype)
    sums = _sums(candidate, workload)
    works = [_phase_work(sums[part], phase, candidate, setting) for part, phase in PARTS.items()]
    found, covariance = shipped().estimate(works, sheet)
    found, covariance = own_share(profile, works, sheet, found, covariance)
    launches = np.array(
        [_starting_ms(part, work, candidate, profile.estimator, setting) for part, work in sums.items()]
    )
    busy = np.array([each.middle_ms for each in found])
    parts = dict(zip(PARTS, (busy + launches).tolist(), strict=True))
    parts["preprocess_ms"] = amounts(candidate, workload).photos * workload.batch * PREPROCESS.middle_ms
    often = np.array([1.0, 1.0, 1.0, workload.new_tokens - 1])
    total = request_ms(parts, workload.new_tokens)
    # The logarithm of a sum, to first order: its terms weighted with their share of the whole.
    weights = often * busy / total
    variance = float(weights @ covariance @ weights)
    variance += (float(often @ launches) / total * LAUNCH.log_sd) ** 2
    variance += (parts["preprocess_ms"] / total * PREPROCESS.log_sd) ** 2
    factor = math.exp(NORMAL_80 * math.sqrt(variance))
    return Latency(
        **parts, new_tokens=workload.new_tokens, label="estimated:datasheet",
        low_ms=total / factor, high_ms=total * factor,
        extrapolated=any(roofline_ms(work, sheet) < LEAST_MS for work in works),
    )  # fmt: skip


def _starting_ms(part: str, work: Work, candidate: Candidate, own: Estimator, setting: Setting) -> float:
    """What an eager framework takes to start the kernels of a part, by the profile's own figures where it has them."""
    if setting.runtime != "torch-eager":
        return 0.0
    kernel_ms = LAUNCH.middle_ms if own.op_overhead_us is None else own.op_overhead_us / 1e3
    layers = candidate.lm_depth if part in ("prefill_ms", "tpot_ms") else 0
    return kernel_ms * work.kernels + layers * (own.layer_overhead_us or 0.0) / 1e3


def phase_works(candidate: Candidate, workload: Workload, setting: Setting) -> dict[str, PhaseWork]:
    """Work of the parts of a request, by the names of `PARTS`."""
    sums = _sums(candidate, workload)
    return {part: _phase_work(sums[part], phase, candidate, setting) for part, phase in PARTS.items()}


def _sums(candidate: Candidate, workload: Workload) -> dict[str, Work]:
    blocks = _blocks(candidate, workload)
    return {part: _sum(blocks[part]) for part in PARTS}


def _sum(blocks: Terms) -> Work:
    """A phase as one piece of work, as published rows give it."""
    count, block = blocks[0]
    total = block_work(block).times(count)
    for count, block in blocks[1:]:
        total = total + block_work(block).times(count)
    return total


def _phase_work(work: Work, phase: PhaseName, candidate: Candidate, setting: Setting) -> PhaseWork:
    """At the dtype's size: `block_work` counts bytes at float32."""
    bits = WEIGHT_BITS[setting.dtype]
    activation_bits = 32 if bits == 8 else bits  # int8 weights are multiplied with activations quantised on the way
    return PhaseWork(
        phase, work.flops, work.weight_bytes * bits / 32, work.activation_bytes * activation_bits / 32, work.rows, bits,
        RUNTIME_FAMILIES.get(setting.runtime, ""), phase == "vision" and encoder(candidate.encoder).family == "cnn",
    )  # fmt: skip
