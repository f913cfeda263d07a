"""Error of interpolating decoder blocks over length: blocks off the grid, measured beside the grid points around them.

    python bench/latency/interpolation.py [--lm smollm2-135m]

Every block is measured in the process and the interleaved passes of the product; the user's cache is left alone.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import closing
from dataclasses import replace

import hardware_profiles
from nas.latency.blocks import BlockSpec
from nas.latency.decoder_terms import decoder_parts, length_shares
from nas.latency.device import Device
from nas.store import Store

PROMPTS = (12, 24, 48, 80, 112, 160, 224, 320, 448, 640)
CONTEXTS = (64, 128, 192, 384, 640)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lm", default="smollm2-135m")
    lm = parser.parse_args().lm
    wanted: dict[str, BlockSpec] = {}
    cases = []
    for phase, lengths in (("prefill", PROMPTS), ("decode", CONTEXTS)):
        for part in decoder_parts(phase, "torch-eager"):
            for length in lengths:
                off = BlockSpec(part.kind, 1, lm=lm, length=length, depth=part.depth)
                around = [(replace(off, length=point), share) for point, share in length_shares(length, part.grid)]
                wanted |= {block.key: block for block in (off, *(block for block, _ in around))}
                cases.append((off, around))
    with tempfile.TemporaryDirectory() as folder, closing(Store(f"sqlite:///{folder}/timings.db")) as store:
        found = Device(hardware_profiles.load("local"), store).exact(list(wanted.values()))
    print(f"{lm}, {len(wanted)} blocks")
    print("| block | length | between | interpolated ms | measured ms | error |\n|---|---|---|---|---|---|")
    errors: dict[str, list[float]] = {}
    for off, around in cases:
        truth = found[off.key].value_ms
        guess = sum(share * found[block.key].value_ms for block, share in around)
        errors.setdefault(f"{off.kind}, {off.depth} layers", []).append(guess / truth - 1)
        between = " and ".join(str(block.length) for block, _ in around)
        print(
            f"| {off.kind}, {off.depth} layers | {off.length} | {between} | {guess:.2f} | {truth:.2f} | {guess / truth - 1:+.1%} |"
        )
    for kind, values in errors.items():
        mean, worst = sum(map(abs, values)) / len(values), max(map(abs, values))
        print(f"{kind}: mean absolute error {mean:.1%}, largest {worst:.1%} over {len(values)} lengths")


if __name__ == "__main__":
    main()
