"""Problem: space, devices, workload, objectives and constraints of one search, with what is known in closed form."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import hardware_profiles
import nas.workload
import proxies
import search_spaces
from hardware_profiles import HardwareProfile
from nas import constraints
from nas.config import SearchConfig
from nas.constraints import Constraint
from nas.cost import cost
from nas.errors import ConfigError, NotMeasuredError
from nas.latency.backends import check
from nas.latency.blocks import BlockSpec, BlockTiming
from nas.latency.calibrated import CalibratedModel
from nas.latency.compose import compose
from nas.latency.estimate import Setting, estimate, known_calibration
from nas.latency.runners import runner_for
from nas.latency.terms import has_blocks, needed
from nas.quality.anchored import Features
from nas.quality.benchmark import Benchmark, Informed, benchmark_of, speaks_of
from nas.quality.prior import prior
from nas.quality.structure import Structure
from nas.records import Latency, Quality
from nas.workload import Workload
from search_spaces import Candidate, SearchSpace

LOWER_IS_BETTER = (*constraints.LATENCY_METRICS, "memory_gib", "params")


@dataclass
class Problem:
    """What is asked, and the composed latencies once the blocks are measured."""

    config: SearchConfig
    space: SearchSpace
    profiles: dict[str, HardwareProfile]
    workload: Workload
    constraints: list[Constraint]
    objectives: list[str]
    timings: dict[str, Mapping[str, BlockTiming]] = field(default_factory=dict)  # by device, then block key
    known_latency: dict[str, dict[str, Latency]] = field(default_factory=dict)  # by key: what a run has stored
    known_quality: dict[str, Quality] = field(default_factory=dict)  # the same
    anchored: dict[str, Quality] = field(default_factory=dict)  # by key, once anchors are trained
    _composed: dict[str, dict[str, Latency]] = field(default_factory=dict, repr=False)  # by key, by these timings

    @property
    def devices(self) -> list[str]:
        return list(self.profiles)

    @property
    def baseline(self) -> Candidate:
        return self.space.baseline_candidate

    @property
    def hears(self) -> bool:
        """Whether its designs take sound, where others take pictures."""
        return self.workload.seconds > 0

    def latency(self, candidate: Candidate) -> dict[str, Latency]:
        """Latency by device: composed, or estimated where nothing was measured.

        Raises: NotMeasuredError where some of the blocks are missing.
        """
        key = candidate.key
        if key in self.known_latency:
            return self.known_latency[key]
        if key not in self._composed:
            self._composed[key] = self._compose(candidate)
        return self._composed[key]

    def take_timings(self, device: str, timings: Mapping[str, BlockTiming]) -> None:
        """Blocks of a device, in place of those that were known before."""
        self.timings[device] = timings
        self._composed.clear()

    def _compose(self, candidate: Candidate) -> dict[str, Latency]:
        return {
            device: compose(candidate, self.workload, self.timings[device], self.config.runtime)
            if device in self.timings
            else estimate(candidate, self.workload, profile, self.calibrations[device], self.setting)
            for device, profile in self.profiles.items()
        }

    @property
    def setting(self) -> Setting:
        """What estimated devices are taken to run with."""
        return Setting(self.config.runtime, self.config.dtype)

    @cached_property
    def calibrations(self) -> dict[str, CalibratedModel | None]:
        """What earlier calibrations left of each device, read once."""
        return {device: known_calibration(device) for device in self.profiles}

    def is_measured(self, candidate: Candidate) -> bool:
        """Whether its latency is known on every device."""
        try:
            self.latency(candidate)
        except NotMeasuredError:
            return False
        return True

    def quality(self, candidate: Candidate) -> Quality:
        """Predicted from the run's anchors, or as stored; else by the shipped benchmark or the closed-form prior."""
        if found := self.anchored.get(candidate.key) or self.known_quality.get(candidate.key):
            return found
        if self.benchmark is None:
            return prior(candidate, cost(candidate, self.workload))
        return self.benchmark.of_space.get(candidate.key) or self.benchmark.predict([candidate])[0]

    @cached_property
    def benchmark(self) -> Benchmark | None:
        """Where the shipped benchmark has trained with most encoders of a space that is enumerated."""
        if not self.space.enumerable or self.hears or not speaks_of(self.space.survey):
            return None
        return benchmark_of(self.space.survey)

    @cached_property
    def features(self) -> Features:
        """What tells its designs apart: their structure, and what the shipped benchmark says of them."""
        return Structure(self.space.survey) if self.benchmark is None else Informed(self.benchmark)

    def score_by(self, anchored: dict[str, Quality]) -> None:
        """From now on `quality` is what the run's trained models say."""
        self.anchored = anchored
        self.__dict__.pop("baseline_metrics", None)  # its quality is another now

    def closed_form(self, candidate: Candidate) -> dict[str, float]:
        """The metrics that need no measurement."""
        costs = cost(candidate, self.workload)
        return {
            "quality": self.quality(candidate).value,
            "memory_gib": costs.memory_gib,
            "params": float(costs.params),
        }

    def metrics(self, candidate: Candidate) -> dict[str, float]:
        """Every metric known now; latencies are named metric@device."""
        found = self.closed_form(candidate)
        for device, latency in self.latency(candidate).items():
            found |= {f"{name}@{device}": getattr(latency, name) for name in constraints.LATENCY_METRICS}
        return found

    @cached_property
    def baseline_metrics(self) -> dict[str, float]:
        return self.metrics(self.baseline)

    def violations(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """How far each constraint is missed, in its unit; <= 0 where it holds.

        One on quality is not judged by the prior where anchors are going to say better.
        """
        found = {}
        for constraint in self.constraints:
            if constraint.metric == "quality" and self.config.anchors and not self.anchored:
                continue
            value = constraints.value_of(metrics, constraint, self.devices[0])
            found[constraint.text] = constraint.violation(value, self._reference(constraint))
        return found

    def limit(self, constraint: Constraint) -> float:
        """The bound of a constraint, in its metric's unit."""
        return constraint.limit(self._reference(constraint))

    def _reference(self, constraint: Constraint) -> float | None:
        """What a bound in percent of the baseline is a share of; others need nothing of the baseline."""
        if not constraint.of_baseline:
            return None
        return constraints.value_of(self.baseline_metrics, constraint, self.devices[0])

    def breaks(self, violations: Mapping[str, float]) -> bool:
        """Whether a constraint that is not soft is missed."""
        return any(violations.get(one.text, 0.0) > 0 for one in self.constraints if not one.soft)

    def objective_values(self, metrics: Mapping[str, float]) -> list[float]:
        """The objectives in declared order and unit."""
        return [metrics[self._metric(name)] for name in self.objectives]

    def _metric(self, objective: str) -> str:
        """With one device, `latency_ms` alone speaks of it."""
        bare = objective in constraints.LATENCY_METRICS
        return f"{objective}@{self.devices[0]}" if bare else objective

    def maximised(self, metrics: Mapping[str, float]) -> list[float]:
        """The objectives as columns to maximise."""
        values = zip(self.objectives, self.objective_values(metrics), strict=True)
        return [-value if name.partition("@")[0] in LOWER_IS_BETTER else value for name, value in values]

    def maximised_as_trained(self, candidate: Candidate, accuracy: float) -> list[float]:
        """The same of one candidate, with its trained accuracy in place of its predicted quality."""
        return self.maximised({**self.metrics(candidate), "quality": accuracy})

    @property
    def directions(self) -> list[Literal["minimize", "maximize"]]:
        lower = (name.partition("@")[0] in LOWER_IS_BETTER for name in self.objectives)
        return ["minimize" if is_lower else "maximize" for is_lower in lower]

    def blocks(self, candidates: list[Candidate]) -> list[BlockSpec]:
        """The distinct blocks of the candidates and of the baseline.

        A device may die on the way: first come those of what constraints speak of, then of candidates spread at random.
        """
        named = [constraints.named_design(c) for c in self.constraints if c.of_file is not None]
        runtime = self.config.runtime
        timed = [one for one in candidates if has_blocks(one, self.workload, runtime)]
        every = [self.baseline, *named, *random.Random(0).sample(timed, len(timed))]
        found = {block.key: block for candidate in every for block in needed(candidate, self.workload, runtime)}
        return list(found.values())

    def resolve_constraints(self) -> None:
        """Gives constraints in percent of a candidate file their bound, now that latencies are known."""

        def figure(constraint: Constraint) -> Callable[[Candidate], float]:
            return lambda candidate: constraints.value_of(self.metrics(candidate), constraint, self.devices[0])

        self.constraints = [constraints.resolve(constraint, figure(constraint)) for constraint in self.constraints]


def define(config: SearchConfig, devices: Path | None = None) -> Problem:
    """Reads and checks everything a search names; `devices` holds the profiles of a finished run.

    Raises: UserError, SpaceError, ProfileError.
    """
    space = search_spaces.load(config.space, dict(config.overrides))
    names = sorted(map(str, devices.glob("*.yaml"))) if devices else config.devices
    profiles: dict[str, HardwareProfile] = {}
    for name in names:
        profile = hardware_profiles.load(name)
        if profile.id in profiles:
            raise ConfigError(f"device {profile.id} is given twice, the second time as {name}; give it once")
        profiles[profile.id] = profile
    check(config.runtime, config.dtype)
    for name in config.proxies or []:
        proxies.check(name)
    workload = nas.workload.of_space(space, config.workload)
    if workload.seconds and config.anchors and config.data is None:
        raise ConfigError(
            f"anchors of models that hear must be 0 without clips to train on, but got {config.anchors}; "
            f"give --data FOLDER"
        )
    texts = space.constraints if config.constraints is None else config.constraints
    for profile in profiles.values():
        if not is_measurable(profile):  # a device without its figures is refused at once
            setting = Setting(config.runtime, config.dtype)
            estimate(space.baseline_candidate, workload, profile, known_calibration(profile.id), setting)
        elif devices is None:
            runner_for(profile)
    parsed = [each for text in texts for each in constraints.for_devices(constraints.parse(text), list(profiles))]
    if config.constraints is None:
        parsed += _budgets(profiles)
    objectives = [each for name in config.objectives for each in _for_devices(name, list(profiles))]
    problem = Problem(config, space, profiles, workload, parsed, objectives)
    for constraint in problem.constraints:
        if constraint.device:
            constraints.check_device(constraint.device, profiles, f"constraint {constraint.text!r}")
        if constraint.of_file and devices is None:  # a finished run may have outlived the file
            constraints.named_design(constraint)
    for objective in config.objectives:
        device = objective.partition("@")[2]
        if device:
            constraints.check_device(device, profiles, f"objective {objective!r}")
    return problem


def _budgets(profiles: Mapping[str, HardwareProfile]) -> list[Constraint]:
    """What the profiles accept, as constraints; of several memory budgets the tightest."""
    found: dict[str, float] = {}
    for device, profile in profiles.items():
        for metric, bound in profile.budgets.bounds.items():
            name = f"{metric}@{device}" if metric in constraints.LATENCY_METRICS else metric
            found[name] = min(bound, found.get(name, bound))
    return [constraints.parse(f"{name} <= {bound:g}") for name, bound in found.items()]


def is_measurable(profile: HardwareProfile) -> bool:
    """This machine, or a device that a runner reaches; of any other there are estimates only."""
    return profile.matches_this_machine() or profile.runner.kind != "local"


def _for_devices(objective: str, devices: list[str]) -> list[str]:
    """With several devices, a bare latency is one objective for each of them."""
    if objective in constraints.LATENCY_METRICS and len(devices) > 1:
        return [f"{objective}@{device}" for device in devices]
    return [objective]
