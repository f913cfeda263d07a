"""Latency on a device that is not at hand: an interval with a middle, never a measurement.

`estimated:calibrated` where `nas devices calibrate --points` has measured some blocks on the device, else
`estimated:datasheet` by the roofline. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hardware_profiles import HardwareProfile
from nas.cache_folder import cache_folder
from nas.latency.blocks import BlockSpec, lengths, preprocess_block, projector_block, vision_block
from nas.latency.calibrated import CalibratedModel, Prediction
from nas.latency.roofline import EAGER, Reached, Span, rates, reached, span_ms
from nas.latency.work import Work, block_work, features
from nas.records import Latency, request_ms
from nas.workload import Workload
from search_spaces import Candidate

# Decoding a photo of 640 x 480 and shrinking it happens on a CPU that no profile describes; assumed.
PREPROCESS_MS = Span(20.0, 5.0, 1.0)


def estimate(
    candidate: Candidate, workload: Workload, profile: HardwareProfile, model: CalibratedModel | None = None
) -> Latency:
    """By `model`, which `known_calibration` gives where there is one, else by the datasheet.

    Raises: ProfileError when the profile lacks the fp32 peak or the bandwidth.
    """
    if model is not None:
        return _calibrated(candidate, workload, model)
    return _datasheet(candidate, workload, profile)


def calibration_file(device: str) -> Path:
    """Where the coefficients of a device are kept."""
    return cache_folder() / "calibrations" / f"{device}.json"


def known_calibration(device: str) -> CalibratedModel | None:
    """What `nas devices calibrate --points` has left; None where it never ran."""
    file = calibration_file(device)
    return CalibratedModel.from_json(file.read_text(encoding="utf-8")) if file.is_file() else None


def _blocks(candidate: Candidate, workload: Workload) -> Mapping[str, list[tuple[float, BlockSpec]]]:
    """By part: (how often, block), at the candidate's own lengths."""
    images, batch, lm = workload.images * workload.batch, workload.batch, candidate.lm
    prompt, context = lengths(candidate, workload)
    depth = float(candidate.lm_depth)
    return {
        "preprocess_ms": [(1, preprocess_block(candidate, images))],
        "vision_ms": [(1, vision_block(candidate, images))],
        "projector_ms": [(1, projector_block(candidate, images))],
        "prefill_ms": [
            (1, BlockSpec("shell_prefill", batch, lm=lm, length=prompt)),
            (depth, BlockSpec("layer_prefill", batch, lm=lm, length=prompt)),
        ],
        "tpot_ms": [
            (1, BlockSpec("shell_decode", batch, lm=lm, length=1)),
            (depth, BlockSpec("layer_decode", batch, lm=lm, length=context)),
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


def _datasheet(candidate: Candidate, workload: Workload, profile: HardwareProfile) -> Latency:
    rate, shares = rates(profile), reached(profile)
    eager = Reached(
        Span(EAGER * shares.compute.worst, shares.compute.middle, shares.compute.best),
        Span(EAGER * shares.memory.worst, shares.memory.middle, shares.memory.best),
    )
    photos = workload.images * workload.batch
    spans = {
        "preprocess_ms": Span(photos * PREPROCESS_MS.worst, photos * PREPROCESS_MS.middle, photos * PREPROCESS_MS.best)
    }
    for name, blocks in _blocks(candidate, workload).items():
        if name == "preprocess_ms":
            continue
        found = [_span(block_work(block), count, rate, eager) for count, block in blocks]
        spans[name] = Span(
            sum(span.worst for span in found), sum(span.middle for span in found), sum(span.best for span in found)
        )
    return Latency(
        **{name: span.middle for name, span in spans.items()},
        new_tokens=workload.new_tokens,
        label="estimated:datasheet",
        low_ms=request_ms({name: span.best for name, span in spans.items()}, workload.new_tokens),
        high_ms=request_ms({name: span.worst for name, span in spans.items()}, workload.new_tokens),
        extrapolated=False,
    )


def _span(work: Work, count: float, rate: tuple[float, float], shares: Reached) -> Span:
    moved = work.weight_bytes + work.activation_bytes
    one = span_ms(work.flops, moved, work.rows, rate, shares, work.kernels)
    return Span(count * one.worst, count * one.middle, count * one.best)
