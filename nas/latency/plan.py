"""Which blocks of a space are measured where all of them would take too long. No torch.

`pocket` needs some 60 blocks, about a minute; `edge` 1,516, prefills of 8,192 tokens among them, which would take a
day. Within a budget of seconds, every encoder and language model gets its share: of each kind of block the largest
that fits, and then those farthest from it in what they compute and move. `nas.latency.fitted` tells the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas.latency.blocks import BlockSpec
from nas.latency.calibrated import LEAST_POINTS
from nas.latency.fitted import component, family, sample
from nas.latency.request import PASSES
from nas.latency.spread import farthest
from nas.latency.work import block_work

# Here, two cores at a canary of 1.5 ms: whole requests ran at 220 GFLOPS, decode steps read 19 GB/s, a kernel starts in
# some 10 us, and decoders were made, and narrowed, at about 0.6 GB/s.
CANARY_MS, FLOPS_PER_S, BYTES_PER_S, KERNEL_S, MADE_BYTES_PER_S = 1.5, 2.0e11, 1.8e10, 1e-5, 6e8
CALLS, LONG_CALLS, LONG_S = 12, 4, 4.0  # of a block in a pass, warm-ups among them; of one that takes LONG_S in two
SETTLING_S = (
    0.04  # before a sample, where few blocks share a piece of a request: other memory is read, the canary asked
)
DECODING_S = 0.06  # a sample of decode steps is a stretch at least so long
MOST_ALIKE, MOST_SMALL = 6, 12  # blocks of one kind and component; of a kind whose components are not told apart
MOST_MADE_BYTES = 3 * 2**30  # larger modules are not made where they can be fitted
SMALL_SHARE = 6  # of such a kind, of one kind and component: its blocks differ most, and are the cheapest


@dataclass(frozen=True, slots=True)
class Plan:
    """Blocks to be measured, those that are stored already among them, and how long that takes."""

    chosen: list[BlockSpec]
    new: list[BlockSpec]  # those of them that are not stored
    seconds: float  # for these
    fitted: int  # blocks that are left out, beside connectors
    seconds_of_all: float
    passes: int  # one over what others are fitted to: it errs by less than the fit

    @property
    def is_bounded(self) -> bool:
        return self.fitted > 0


def plan(blocks: Iterable[BlockSpec], stored: Iterable[str], budget_s: float | None, canary_ms: float) -> Plan:
    """All blocks but most connectors, in as many passes as `budget_s` allows; if in none, a choice of about so long.

    Of what is `stored` (keys) already, only kinds and components that have too few are measured further.
    """
    wanted = {block.key: block for block in blocks}
    sampled = {block.key for block in sample([one for one in wanted.values() if one.kind == "projector"])}
    every = [block for block in wanted.values() if block.kind != "projector" or block.key in sampled]
    known = set(stored)
    new = [block for block in every if block.key not in known]
    once_s = Clock(canary_ms).add_all(new)
    passes = PASSES if budget_s is None or not once_s else min(PASSES, int(budget_s / once_s))
    if budget_s is None or passes:
        return Plan(every, new, passes * once_s, 0, PASSES * once_s, passes)
    clock = Clock(canary_ms)
    kept = [block for block in wanted.values() if block.key in known]
    new = [block for block in wanted.values() if block.key not in known and _made_bytes(block) <= MOST_MADE_BYTES]
    clock.add_all(kept)
    chosen = affordable(new, kept, budget_s, clock)
    measured = {block.key for block in (*kept, *chosen)}
    fitted = sum(block.key not in measured for block in every)
    return Plan([*kept, *chosen], chosen, Clock(canary_ms).add_all(chosen), fitted, PASSES * once_s, 1)


def affordable(
    blocks: Sequence[BlockSpec], kept: Sequence[BlockSpec], budget_s: float, clock: Clock
) -> list[BlockSpec]:
    """Some blocks of every kind and component, the cheap ones first, which leave the rest of their share.

    None of what has enough among those `kept`; and as many of each family as a fit needs, however long they take.
    """
    groups: dict[tuple[str, str], list[BlockSpec]] = {}
    for block in blocks:
        groups.setdefault((block.kind, component(block)), []).append(block)
    had: Counter[tuple[str, str]] = Counter((block.kind, component(block)) for block in kept)
    room = {name: (MOST_ALIKE if name[1] else MOST_SMALL) - had[name] for name in groups}
    groups = {name: alike for name, alike in groups.items() if room[name] > 0}
    ordered = sorted(groups.values(), key=lambda alike: min(map(clock.cost, alike)))
    chosen: list[BlockSpec] = []
    shares = [1 if component(alike[0]) else SMALL_SHARE for alike in ordered]
    for index, alike in enumerate(ordered):
        share_s = budget_s * shares[index] / sum(shares[index:])
        for block in _spread(alike, share_s, clock, room[alike[0].kind, component(alike[0])]):
            budget_s -= clock.add(block)
            chosen.append(block)
    return [*chosen, *_least(blocks, [*kept, *chosen], clock)]


def _least(blocks: Sequence[BlockSpec], known: Sequence[BlockSpec], clock: Clock) -> list[BlockSpec]:
    """The cheapest of each family that has fewer than a fit needs."""
    had, taken = Counter(map(family, known)), {block.key for block in known}
    left: dict[str, list[BlockSpec]] = {}
    for block in blocks:
        if block.key not in taken and had[family(block)] < LEAST_POINTS:
            left.setdefault(family(block), []).append(block)
    return [one for name, alike in left.items() for one in sorted(alike, key=clock.cost)[: LEAST_POINTS - had[name]]]


def _spread(alike: list[BlockSpec], share_s: float, clock: Clock, most: int) -> list[BlockSpec]:
    """Far apart, none of which takes more than half of the share, or the cheapest alone."""
    within = [block for block in alike if clock.cost(block) <= share_s / 2]
    if not within:
        cheapest = min(alike, key=clock.cost)
        return [cheapest] if clock.cost(cheapest) <= share_s else []
    works = [block_work(block) for block in within]
    points = np.log([[w.flops + 1, w.weight_bytes + 1, w.activation_bytes + 1, w.kernels + 1] for w in works])
    found: list[BlockSpec] = []
    for place in dict.fromkeys(farthest(points, most)):
        cost_s = clock.cost(within[place])
        if cost_s <= share_s:
            found.append(within[place])
            share_s -= cost_s
    return found


class Clock:
    """Seconds to make and to measure blocks in one pass; what several share is made once."""

    def __init__(self, canary_ms: float) -> None:
        self.slower = canary_ms / CANARY_MS
        self.made: set[tuple[object, ...]] = set()

    def cost(self, block: BlockSpec) -> float:
        work = block_work(block)
        once_s = work.flops / FLOPS_PER_S + (work.weight_bytes + work.activation_bytes) / BYTES_PER_S
        once_s += work.kernels * KERNEL_S
        if block.kind.endswith("decode"):
            once_s = once_s + max(once_s, DECODING_S)
        calls = min(CALLS, LONG_CALLS + LONG_S / once_s)
        making_s = 0.0 if module_of(block) in self.made else _made_bytes(block) / MADE_BYTES_PER_S
        return self.slower * (calls * (once_s + SETTLING_S) + making_s + _filling_flops(block) / FLOPS_PER_S)

    def add(self, block: BlockSpec) -> float:
        """The same, and its module is made from now on."""
        cost_s = self.cost(block)
        self.made.add(module_of(block))
        return cost_s

    def add_all(self, blocks: Iterable[BlockSpec]) -> float:
        return sum(map(self.add, blocks))


def _made_bytes(block: BlockSpec) -> float:
    """Weights as they are drawn, before they are narrowed; FastV is timed in a decoder of its own."""
    if block.kind == "fastv" or block.kind.startswith("decoder_"):
        axes = tuple((name, value) for name, value in block.axes if name != "lm_weights")
        block = replace(block, kind="decoder_prefill", depth=block.depth or 2, axes=axes)
    return block_work(block).weight_bytes


def _filling_flops(block: BlockSpec) -> float:
    """To bring a cache to the length that a step, or a later turn, finds."""
    held = block.length if block.kind == "decoder_decode" else block.past
    return block_work(replace(block, kind="decoder_prefill", length=held, past=0)).flops if held else 0.0


def module_of(block: BlockSpec) -> tuple[object, ...]:
    """What tells modules apart: blocks of one decoder share it."""
    if block.kind.startswith("decoder_"):
        return (block.lm, block.depth, block.axes)
    return (block,)
