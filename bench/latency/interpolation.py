"""Error of interpolating decoder blocks over length: blocks off the grid, measured beside the grid points around them.

    python bench/latency/interpolation.py [--lm smollm2-135m]

Every block is measured in the same interleaved passes as in the product; nothing is read from or written to the cache.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import hardware_profiles
from nas.latency.blocks import BlockSpec, BlockTiming
from nas.latency.context import context_here
from nas.latency.decoder_terms import decoder_parts, length_shares
from nas.latency.measure import measure_blocks

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
    found: dict[str, BlockTiming] = {}
    profile = hardware_profiles.load("local")
    cache_mib = profile.memory.last_level_cache_mib
    measure_blocks(list(wanted.values()), context_here(profile), last_level_cache_mib=cache_mib, keep=found.update)
    print("| block | length | between | interpolated ms | measured ms | error |\n|---|---|---|---|---|---|")
    errors: dict[str, list[float]] = {}
    for off, around in cases:
        truth = found[off.key].value_ms
        guess = sum(share * found[block.key].value_ms for block, share in around)
        errors.setdefault(off.kind, []).append(guess / truth - 1)
        between = " and ".join(str(block.length) for block, _ in around)
        print(f"| {off.kind} | {off.length} | {between} | {guess:.2f} | {truth:.2f} | {guess / truth - 1:+.1%} |")
    for kind, values in errors.items():
        mean, worst = sum(map(abs, values)) / len(values), max(map(abs, values))
        print(f"{kind}: mean absolute error {mean:.1%}, largest {worst:.1%} over {len(values)} lengths")


if __name__ == "__main__":
    main()
