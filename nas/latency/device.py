"""Device: one profile in one runtime, and where its numbers come from: the cache, this machine, or a runner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from hardware_profiles import HardwareProfile
from hardware_profiles.profile import Calibration
from nas.errors import NotMeasuredError, RunnerError
from nas.latency.blocks import BlockSpec, BlockTiming, MeasurementContext
from nas.latency.cache import CANARY_TOLERANCE, Measure, Progress, TimingStore, comparable, ensure_blocks, quiet
from nas.latency.context import context_here
from nas.latency.fitted import complete
from nas.latency.plan import Plan, plan
from nas.latency.request import PASSES, EndToEnd, Request, block_timing, end_to_end
from nas.latency.runner_messages import Message
from nas.latency.runners import LocalRunner, Runner, runner_for
from nas.workload import Workload
from search_spaces import Candidate

SILENT: Progress = lambda done, total: None  # noqa: E731


@dataclass(frozen=True)
class Timings(Mapping[str, BlockTiming]):
    """Timings of blocks by key, all of one context and brought to its quietest canary."""

    context: MeasurementContext
    blocks: Mapping[str, BlockTiming]

    def __getitem__(self, key: str) -> BlockTiming:
        return self.blocks[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def canary_ms(self) -> float:
        """Of the quietest session; every timing is scaled to it."""
        return min(timing.calm_canary_ms for timing in self.blocks.values())

    @property
    def measured(self) -> dict[str, BlockTiming]:
        """Without those that were fitted to others."""
        return {key: timing for key, timing in self.blocks.items() if timing.modelled is None}


class Device:
    """Measures on one device, or reads what was measured. Raises: RunnerError where the device does not answer."""

    def __init__(
        self,
        profile: HardwareProfile,
        store: TimingStore,
        runtime: str = "torch-eager",
        dtype: str = "fp32",
        runner: Runner | None = None,
    ) -> None:
        self.profile, self.store, self.runtime, self.dtype = profile, store, runtime, dtype
        self._runner = runner

    @property
    def runner(self) -> Runner:
        if self._runner is None:
            self._runner = runner_for(self.profile)
        return self._runner

    @property
    def _is_here(self) -> bool:
        """Whether measurements run on this machine, with the packages of this process."""
        return isinstance(self.runner, LocalRunner)

    @property
    def _tolerance(self) -> float:
        return self.profile.protocol.canary_tolerance or CANARY_TOLERANCE

    @cached_property
    def context(self) -> MeasurementContext:
        """What timings are tied to; a device behind a runner is asked for the version of its runtime.

        That holds for a runner to this very machine too: its Python may have another version installed.
        """
        if self._is_here:
            return context_here(self.profile, self.runtime, self.dtype)
        return MeasurementContext(
            self.profile.id, self.runtime, str(self._state["runtime_version"]), self.dtype,
            self.profile.threads(self.runtime),
        )  # fmt: skip

    @cached_property
    def _state(self) -> dict[str, Any]:
        """Versions and canary, as the device tells them when first spoken to."""
        for message in self._answers():
            if message["kind"] == "environment":
                return message
        raise AssertionError("a runner ends with an environment or an error")

    def canary_ms(self) -> float:
        """How fast the device is just now."""
        if self._is_here:
            from nas.latency.backends import torch_threads
            from nas.latency.measure import canary_at

            return canary_at(torch_threads(self.runtime, self.profile.threads(self.runtime)))
        return float(self._state["canary_ms"])

    def plan(self, blocks: Iterable[BlockSpec], budget_s: float | None = None) -> Plan:
        """What `timings` would have to measure: what is not stored, or only from busier times than now."""
        canary_ms = self.canary_ms()
        stored = comparable(self.store.block_timings(self.context), canary_ms, self._tolerance)
        return plan(blocks, stored, budget_s, canary_ms, self.profile.memory.last_level_cache_mib)

    def timings(self, blocks: Iterable[BlockSpec], progress: Progress = SILENT, planned: Plan | None = None) -> Timings:
        """Timings of all blocks by key; the rest is fitted to those that are measured.

        Without a plan only many connectors are fitted, and every other block is measured.
        """
        wanted = list({block.key: block for block in blocks}.values())
        chosen = planned or self.plan(wanted)
        known = self.exact(chosen.chosen, progress, chosen.passes)
        return Timings(self.context, known | complete(_to_fit(wanted, every=chosen.is_bounded), known))

    def exact(
        self, blocks: Sequence[BlockSpec], progress: Progress = SILENT, passes: int = PASSES
    ) -> dict[str, BlockTiming]:
        """Every one of these blocks, measured."""
        measure: Measure = lambda missing, keep: self._measure(missing, keep, passes)  # noqa: E731
        return quiet(
            ensure_blocks(blocks, self.store, self.context, measure, self.canary_ms, progress, self._tolerance)
        )

    def known(
        self, blocks: Sequence[BlockSpec], fresh: Mapping[str, BlockTiming] | None = None, *, fit_every: bool = False
    ) -> Timings:
        """What the cache holds of the blocks, without asking the device: of the version that it was last seen with.

        `fresh` timings count instead of those in the cache; blocks that are missing are fitted where they are
        connectors, or all (`fit_every`). Raises: NotMeasuredError where nothing was ever measured.
        """
        context = self._last_context()
        stored = self.store.block_timings(context) | dict(fresh or {})
        found = quiet({block.key: stored[block.key] for block in blocks if block.key in stored})
        return Timings(context, found | complete(_to_fit(blocks, every=fit_every), found))

    def _last_context(self) -> MeasurementContext:
        if self._is_here or "context" in self.__dict__:
            return self.context
        wanted = MeasurementContext(self.profile.id, self.runtime, "", self.dtype, self.profile.threads(self.runtime))
        version = self.store.last_version(wanted)
        if version is None:
            raise NotMeasuredError(f"nothing was ever measured on {self.profile.id} in {self.runtime} {self.dtype}")
        return replace(wanted, version=version)

    def requests(
        self, candidates: Mapping[str, Candidate], workload: Workload, rounds: int | None = None, sustained_s: float = 0
    ) -> dict[str, EndToEnd]:
        """Every candidate end to end, in paired rounds on the device."""
        asked = {"candidates": candidates, "workload": workload, "rounds": rounds, "sustained_s": sustained_s}
        return self._answered(asked)[0]

    def requests_and_blocks(
        self,
        candidates: Mapping[str, Candidate],
        workload: Workload,
        blocks: Sequence[BlockSpec],
        rounds: int | None = None,
    ) -> tuple[dict[str, EndToEnd], dict[str, BlockTiming]]:
        """Candidates end to end, and timings of `blocks` that were taken among them.

        The cache then holds these samples beside the former ones.
        """
        before = self.store.block_timings(self.context)
        found, between = self._answered(
            {"candidates": candidates, "workload": workload, "blocks": tuple(blocks), "rounds": rounds}
        )
        self.store.add_block_timings(
            self.context, {key: before[key].merged(new) if key in before else new for key, new in between.items()}
        )
        return found, between

    def _answered(self, asked: dict[str, Any]) -> tuple[dict[str, EndToEnd], dict[str, BlockTiming]]:
        found, between = dict[str, EndToEnd](), dict[str, BlockTiming]()
        for message in self._answers(**asked):
            if message["kind"] == "requests":
                found |= {key: end_to_end(fields) for key, fields in message["results"].items()}
            if message["kind"] == "timings":
                between |= _timings(message)
        return found, between

    def speeds(self) -> Calibration:
        """What the device does of plain products and copying, measured now."""
        for message in self._answers(speeds=True):
            if message["kind"] == "speeds":
                return Calibration.model_validate(message["calibration"])
        raise RunnerError(f"{self.profile.id} did not tell its speeds; update the program on it")

    def _measure(self, blocks: list[BlockSpec], keep: Callable[[dict[str, BlockTiming]], None], passes: int) -> None:
        for message in self._answers(blocks=tuple(blocks), passes=passes):
            if message["kind"] == "timings":
                keep(_timings(message))

    def _answers(self, **asked: Any) -> Iterator[Message]:
        return self.runner.run(Request(self.profile, self.runtime, self.dtype, **asked))


def _to_fit(blocks: Sequence[BlockSpec], *, every: bool) -> list[BlockSpec]:
    return [block for block in blocks if every or block.kind == "projector"]


def _timings(message: Message) -> dict[str, BlockTiming]:
    return {key: block_timing(fields) for key, fields in message["timings"].items()}
