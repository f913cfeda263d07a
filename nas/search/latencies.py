"""Latency on every device of a search: from measured blocks, or an estimate where nothing can be measured."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nas.durations import about
from nas.errors import NotMeasuredError, RefusalError
from nas.latency.blocks import BlockSpec
from nas.latency.device import Device
from nas.latency.plan import Plan
from nas.latency.runners import with_retries
from nas.search.problem import Problem, is_measurable
from nas.store import Store

ATTEMPTS = 3
LEAST_PACED_S = 20  # shorter measurements say little of a device's pace: they are libraries that are loaded


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
    fitted: set[str] = field(default_factory=set)  # devices of which not every block is to be measured
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
        name, kind = device.profile.id, f"pace:3:blocks:{device.context.key}"
        was_fitted = self.run_store.meta(f"fitted:{name}") is not None
        pace, budget_s = float(self.cache.meta(kind) or 1), self.problem.config.measuring_s
        planned = device.plan(self.blocks, 0 if was_fitted else budget_s and budget_s / pace)
        self._announce(name, planned, pace)
        started = time.monotonic()
        timings = device.timings(
            self.blocks, lambda done, of: self.progress(f"measuring blocks of {name}", done, of), planned
        )
        if planned.new:
            self._compare(device, kind, planned.seconds, pace, time.monotonic() - started)
        if planned.is_bounded:
            self.run_store.set_meta(f"fitted:{name}", str(planned.fitted))
        self.problem.take_timings(name, timings)
        stored = self.run_store.block_timings(timings.context)
        fresh = {key: timing for key, timing in timings.measured.items() if key not in stored}
        self.run_store.add_block_timings(timings.context, fresh)

    def _compare(self, device: Device, kind: str, closed_s: float, pace: float, took_s: float) -> None:
        """What blocks took, beside what was expected, from which the next measurement on this device learns."""
        name = device.profile.id
        self.say(f"time         blocks of {name} took {about(took_s)} of {about(closed_s * pace)} expected")
        self.run_store.set_meta(f"time:blocks:{name}", json.dumps([closed_s * pace, took_s]))
        if closed_s > LEAST_PACED_S:
            self.cache.set_meta(kind, str(took_s / closed_s))

    def _announce(self, name: str, planned: Plan, pace: float) -> None:
        if planned.new:
            self.say(
                f"latency      {name}: {len(planned.new):,} blocks are to be measured, about "
                f"{about(pace * planned.seconds)}"
            )
        if planned.is_bounded:
            self.fitted.add(name)
            self.say(
                f"latency      {name}: {planned.fitted:,} more are fitted to them, since all would take about "
                f"{about(pace * planned.seconds_of_all)}; --set measuring_s=SECONDS measures more"
            )

    def _keep(self, device: Device) -> bool:
        """What was measured before the device stopped answering; False where that is nothing."""
        try:
            self.problem.take_timings(
                device.profile.id, device.known(self.blocks, fit_every=device.profile.id in self.fitted)
            )
        except NotMeasuredError:
            return False
        return len(self.problem.timings[device.profile.id]) > 0
