"""Latency on every device of a search: from measured blocks, or an estimate where nothing can be measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nas.errors import NotMeasuredError, RefusalError
from nas.latency.blocks import BlockSpec
from nas.latency.device import Device
from nas.latency.runners import with_retries
from nas.search.expectation import in_words
from nas.search.problem import Problem, is_measurable
from nas.store import Store

ATTEMPTS = 3
BLOCK_S = 0.4  # to measure a block of `pocket` here, until the device's own pace is known


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
        name, kind = device.profile.id, f"pace:blocks:{device.context.key}"
        lacking, started = device.lacking(self.blocks), time.monotonic()
        if lacking:
            expected_s = lacking * float(self.cache.meta(kind) or BLOCK_S)
            self.say(f"latency      {name}: {lacking} blocks are to be measured, about {in_words(expected_s)}")
        timings = device.timings(self.blocks, lambda done, of: self.progress(f"measuring blocks of {name}", done, of))
        if lacking:
            self.cache.set_meta(kind, str((time.monotonic() - started) / lacking))
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
