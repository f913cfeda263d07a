"""Which blocks of a space are measured where all of them would take too long. No torch.

`pocket` needs some 60 blocks, about a minute; `edge` 1,516, prefills of 8,192 tokens among them, which would take a
day. Within a budget of seconds, every encoder and language model gets its share: of each kind of block the largest
that fits, and then those farthest from it in what they compute and move. `nas.latency.fitted` tells the rest.
"""

from __future__ import annotations

import math
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

# What blocks took on two cores of an EPYC and of a Xeon (bench/search/RESULTS.md). Products follow the canary; kernels
# that start, memory that is read and the stretches of the protocol do not, and are nearly all that `micro` takes.
CANARY_FLOPS, PRODUCTS_SHARE = 2 * 512**3, 0.8  # of the canary's FLOPs per second, in whole blocks
BYTES_PER_S, MADE_BYTES_PER_S, KERNEL_S = 1.5e10, 4e8, 2e-5  # weights are drawn and narrowed as they are made
STARTING_S = 7.0  # of the process that measures: libraries, mostly
WARM_CALLS, ROUND_CALLS = 3, 9  # of a block in a pass: two, of which the first is slow; rounds until it is calm
LONG_CALLS, LONG_S = 2, 4.0  # samples of one that takes LONG_S in two
DECODING_S = 0.06  # a sample of decode steps is a stretch at least so long, after one that is not timed
SETTLED_CANARIES, SETTLED_SHARE = 6, 0.5  # before a chain of samples, of which a block has so much for itself
UNKNOWN_CACHE_MIB, MOST_CACHE_MIB = 32, 128  # a virtual machine is told the cache of its whole host
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


def plan(
    blocks: Iterable[BlockSpec],
    stored: Iterable[str],
    budget_s: float | None,
    canary_ms: float,
    last_level_cache_mib: float | None = None,
) -> Plan:
    """All blocks but most connectors, in as many passes as `budget_s` allows; if in none, a choice of about so long.

    Of what is `stored` (keys) already, only kinds and components that have too few are measured further.
    """
    wanted = {block.key: block for block in blocks}
    sampled = {block.key for block in sample([one for one in wanted.values() if one.kind == "projector"])}
    every = [block for block in wanted.values() if block.kind != "projector" or block.key in sampled]
    known = set(stored)
    new = [block for block in every if block.key not in known]
    once_s = Clock(canary_ms, last_level_cache_mib).add_all(new)
    all_s = STARTING_S + PASSES * once_s
    left_s = math.inf if budget_s is None else max(0, budget_s - STARTING_S)
    passes = int(min(PASSES, left_s / once_s)) if once_s else PASSES
    if passes or budget_s is None:
        return Plan(every, new, STARTING_S + passes * once_s if new else 0.0, 0, all_s, passes)
    clock = Clock(canary_ms, last_level_cache_mib)
    kept = [block for block in wanted.values() if block.key in known]
    new = [block for block in wanted.values() if block.key not in known and _made_bytes(block) <= MOST_MADE_BYTES]
    clock.add_all(kept)
    chosen = affordable(new, kept, left_s, clock)
    measured = {block.key for block in (*kept, *chosen)}
    fitted = sum(block.key not in measured for block in every)
    chosen_s = STARTING_S + Clock(canary_ms, last_level_cache_mib).add_all(chosen) if chosen else 0.0
    return Plan([*kept, *chosen], chosen, chosen_s, fitted, all_s, 1)


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


def stranger_bytes(last_level_cache_mib: float | None) -> int:
    """Of other memory that is read before samples, so that nothing of theirs is left in the caches."""
    return int(2 * min(last_level_cache_mib or UNKNOWN_CACHE_MIB, MOST_CACHE_MIB) * 2**20)


class Clock:
    """Seconds to make and to measure blocks in one pass; what several share is made once."""

    def __init__(self, canary_ms: float, last_level_cache_mib: float | None = None) -> None:
        self.flops_per_s = PRODUCTS_SHARE * CANARY_FLOPS / (canary_ms / 1e3)
        settled_s = SETTLED_CANARIES * canary_ms / 1e3 + stranger_bytes(last_level_cache_mib) / BYTES_PER_S
        self.settling_s = SETTLED_SHARE * settled_s
        self.made: set[tuple[object, ...]] = set()

    def cost(self, block: BlockSpec) -> float:
        work = block_work(block)
        moved_s = (work.weight_bytes + work.activation_bytes) / BYTES_PER_S
        call_s = work.flops / self.flops_per_s + moved_s + work.kernels * KERNEL_S
        sample_s = call_s + max(call_s, DECODING_S) if block.kind.endswith("decode") else call_s
        rounds = min(ROUND_CALLS, LONG_CALLS + LONG_S / sample_s)
        making_s = 0.0 if module_of(block) in self.made else _made_bytes(block) / MADE_BYTES_PER_S
        filling_s = _filling_flops(block) / self.flops_per_s
        return making_s + filling_s + WARM_CALLS * call_s + rounds * (sample_s + self.settling_s)

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
