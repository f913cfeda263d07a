"""Latency on every device of a search: from measured blocks, or an estimate where nothing can be measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nas.errors import NotMeasuredError, RefusalError
from nas.latency.blocks import BlockSpec
from nas.latency.device import Device
from nas.latency.runners import with_retries
from nas.latency.work import block_work
from nas.search.expectation import CANARY_FLOPS, FEATURE_SHARE, in_words
from nas.search.problem import Problem, is_measurable
from nas.store import Store

ATTEMPTS = 3
BLOCK_CANARIES, SAMPLES = 1250, 27  # of a block: what takes as long around its samples, warm-ups counted (bench/search)


def blocks_s(blocks: Sequence[BlockSpec], canary_ms: float) -> float:
    """To measure them where the canary takes so long."""
    flops = sum(block_work(block).flops for block in blocks)
    return canary_ms / 1e3 * (BLOCK_CANARIES * len(blocks) + SAMPLES * flops / FEATURE_SHARE / CANARY_FLOPS)


@dataclass
class Latencies:
    """Keeps the devices of a search and what is still unmeasured on them."""

    problem: Problem
    run_store: Store
    blocks: list[BlockSpec]
    say: Callable[[str], None]
    progress: Callable[[str, int, int], None]
    cache: Store = field(default_factory=Store.user_cache)
    unmeasured: dict[str, Device] = field(default_factory=dict)
    pause: Callable[[float], None] = time.sleep

    def measure(self) -> None:
        """Raises: RunnerError where a device refuses, or has never answered."""
        config = self.problem.config
        for name, profile in self.problem.profiles.items():
            if not is_measurable(profile):
                self.say(f"latency      {name}: estimated:datasheet, it is not at hand and its profile names no runner")
                continue
            device = Device(profile, self.cache, config.runtime, config.dtype)
            failed = with_retries(lambda device=device: self._ensure(device), ATTEMPTS, self.pause)  # type: ignore[misc]
            if failed is not None:
                if isinstance(failed, RefusalError) or not self._keep(device):
                    raise failed
                self.unmeasured[name] = device
                self.say(f"latency      {failed}; candidates that need the rest are unmeasured and tried again later")

    def retry(self) -> bool:
        """Once more what is missing; whether anything new is known."""
        recovered = False
        for name, device in list(self.unmeasured.items()):
            before = len(self.problem.timings[name])
            if with_retries(lambda device=device: self._ensure(device), 1) is None:  # type: ignore[misc]
                del self.unmeasured[name]
                self.say(f"latency      {name}: answers again, every block is measured")
            else:
                self._keep(device)
            recovered = recovered or len(self.problem.timings[name]) > before
        return recovered

    def close(self) -> None:
        self.cache.close()

    def _ensure(self, device: Device) -> None:
        name, kind = device.profile.id, f"pace:2:blocks:{device.context.key}"
        lacking = device.lacking(self.blocks)
        if lacking:
            closed_s, pace = blocks_s(lacking, device.canary_ms()), float(self.cache.meta(kind) or 1)
            started = time.monotonic()
            self.say(
                f"latency      {name}: {len(lacking)} blocks are to be measured, about {in_words(closed_s * pace)}"
            )
        timings = device.timings(self.blocks, lambda done, of: self.progress(f"measuring blocks of {name}", done, of))
        if lacking:
            self.cache.set_meta(kind, str((time.monotonic() - started) / closed_s))
        self.problem.take_timings(name, timings)
        stored = self.run_store.block_timings(timings.context)
        fresh = {key: timing for key, timing in timings.measured.items() if key not in stored}
        self.run_store.add_block_timings(timings.context, fresh)

    def _keep(self, device: Device) -> bool:
        """What was measured before the device stopped answering; False where that is nothing."""
        try:
            self.problem.take_timings(device.profile.id, device.known(self.blocks))
        except NotMeasuredError:
            return False
        return len(self.problem.timings[device.profile.id]) > 0
