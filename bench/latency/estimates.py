"""Estimates of devices that were left out: `python bench/latency/estimates.py --published CSV`.

Fits the model of nas/latency/shares.py without one device at a time (all labels of the same hardware together; the
widths of its intervals come from the other devices too), predicts that device, and prints per class of device the share
of published values inside the 80 % interval, the median absolute error, and the rank correlation within a device.
`--write` fits all rows and writes the coefficients that the program ships. `--check CSV` predicts, with those shipped
coefficients, the rows of devices that they have not seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from published import Row, measured_here, rows
from scipy.stats import spearmanr

from nas.latency.share_fit import Observation, fit, left_out, widths
from nas.latency.shares import NORMAL_80, SHARES_FILE, shipped


def leave_devices_out(known: list[Row]) -> tuple[np.ndarray, np.ndarray, str]:
    """(log error, half-width of its 80 % interval in logarithms) of every row, and the model of all rows as JSON."""
    seen = [Observation(row.device, row.work, row.sheet, row.ms) for row in known]
    names = [row.device for row in known]
    shares, state = fit(seen, f"bench/latency/estimates: {len(known)} timings of {len(set(names))} devices")
    error, expected = left_out(seen, state)
    half = np.empty(len(seen))
    for device in set(names):
        others = np.array([name != device for name in names])
        rest = [row for row, keep in zip(seen, others, strict=True) if keep], error[others], expected[others]
        width, of_kind = widths(*rest)
        for index in np.flatnonzero(~others):
            half[index] = NORMAL_80 * width * of_kind.get(seen[index].sheet.kind, 1.0) * expected[index]
    width, of_kind = widths(seen, error, expected)
    return error, half, replace(shares, width=width, kind_widths=of_kind).to_json()


def with_shipped(known: list[Row]) -> tuple[np.ndarray, np.ndarray]:
    """The same of devices that the shipped coefficients have not seen."""
    found = [shipped().estimate([row.work], row.sheet)[0][0] for row in known]
    error = np.array([np.log(row.ms / estimate.middle_ms) for row, estimate in zip(known, found, strict=True)])
    return error, np.array([NORMAL_80 * estimate.log_sd for estimate in found])


def report(known: list[Row], error: np.ndarray, half: np.ndarray) -> None:
    print(
        "| class | phase | rows | devices | inside 80 % interval | interval | median abs. error | Spearman within a device |"
    )
    print("|---|---|---|---|---|---|---|---|")
    kinds, phases = sorted({row.kind for row in known}), ("vision", "prefill", "decode")
    for kind in kinds:
        for phase in phases:
            _line(known, error, half, kind, phase, lambda r, k=kind, p=phase: r.kind == k and r.work.phase == p)
        _line(known, error, half, f"**{kind}**", "all", lambda r, k=kind: r.kind == k)
    for phase in phases:
        _line(known, error, half, "**all**", phase, lambda r, p=phase: r.work.phase == p)
    _line(known, error, half, "**all**", "all", lambda r: True)


def _line(
    known: list[Row], error: np.ndarray, half: np.ndarray, kind: str, phase: str, belongs: Callable[[Row], bool]
) -> None:
    own = np.array([index for index, row in enumerate(known) if belongs(row)], dtype=int)
    if not len(own):
        return
    inside = np.abs(error[own]) <= half[own]
    wrong = np.abs(np.expm1(-error[own]))
    ranks = _ranks([known[index] for index in own], error[own])
    rank = f"{np.median(ranks):.2f} ({len(ranks)} devices)" if ranks else "too few rows"
    count = f"{len(own)} | {len({known[index].device for index in own})}"
    width = f"x/÷ {np.exp(np.median(half[own])):.2f}"
    print(f"| {kind} | {phase} | {count} | {np.mean(inside):.0%} | {width} | {np.median(wrong):.0%} | {rank} |")


def _ranks(own: list[Row], error: np.ndarray) -> list[float]:
    """By device and phase with four or more different rows."""
    found = []
    for device, phase in sorted({(row.device, row.work.phase) for row in own}):
        pairs = [
            (row.ms / np.exp(off), row.ms)
            for row, off in zip(own, error, strict=True)
            if (row.device, row.work.phase) == (device, phase)
        ]
        if len(pairs) >= 4 and all(len(set(side)) > 1 for side in zip(*pairs, strict=True)):
            found.append(float(spearmanr(*zip(*pairs, strict=True))[0]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--published", type=Path, help="fitted, each device predicted without itself")
    parser.add_argument("--write", action="store_true", help="write the coefficients that the program ships")
    parser.add_argument("--check", type=Path, help="other rows, predicted with the shipped coefficients")
    asked = parser.parse_args()
    for file in (asked.published, asked.check):
        if file is None:
            continue
        known, skipped = rows(file)
        if file == asked.published:
            known += measured_here()
        if file == asked.check:
            known = [row for row in known if row.device not in shipped().devices]
            print(f"\n{file.name}, shipped coefficients, devices that they have not seen:")
        print(f"\n{len(known)} rows; left out: {', '.join(f'{n} {reason}' for reason, n in sorted(skipped.items()))}\n")
        if file == asked.published:
            error, half, model = leave_devices_out(known)
            if asked.write:
                SHARES_FILE.write_text(model, encoding="utf-8")
        else:
            error, half = with_shipped(known)
        report(known, error, half)


if __name__ == "__main__":
    main()
