"""A device's own words are believed: its version and speed, never those of the machine that asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from runner_requests import BLOCKS, SPACE, here, timing

from cli.latency import How, latency
from hardware_profiles import HardwareProfile, ProfileError
from hardware_profiles.profile import Protocol
from nas.config import SearchConfig
from nas.errors import NotMeasuredError
from nas.latency.blocks import BlockTiming
from nas.latency.device import Device
from nas.latency.request import Request
from nas.latency.runner_messages import Message
from nas.latency.runners import LocalRunner
from nas.search.gate import fitting
from nas.search.problem import define
from nas.store import Store

SSH = {"kind": "ssh", "host_ref": "pi"}


@dataclass
class Far:
    """A device that answers as a runner would."""

    version: str = "1.2.3"
    canary_ms: float = 7.0
    asked: list[Request] = field(default_factory=list)

    def run(self, request: Request) -> Iterator[Message]:
        self.asked.append(request)
        yield {"kind": "environment", "runtime_version": self.version, "canary_ms": self.canary_ms}
        found = {block.key: timing(block, canary_ms=self.canary_ms) for block in request.blocks}
        yield {"kind": "timings", "timings": found}
        yield {"kind": "done"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path}/cache.db")
    yield opened
    opened.close()


def test_a_runner_is_asked_even_where_the_profile_matches_this_machine(store: Store) -> None:
    """A container or another Python behind ssh on this machine has its own versions and speed."""
    profile = here(**SSH)
    assert profile.matches_this_machine()
    far = Device(profile, store, runner=Far())
    assert far.context.version == "1.2.3"
    assert far.canary_ms() == 7.0
    near = Device(here(), store)
    assert isinstance(near.runner, LocalRunner)
    assert near.context.version != "1.2.3" and near.canary_ms() != 7.0


def test_what_is_known_of_a_device_is_told_without_asking_it(store: Store) -> None:
    measured = Far()
    Device(here(**SSH), store, runner=measured).timings(BLOCKS)
    silent = Far()
    found = Device(here(**SSH), store, runner=silent).known(BLOCKS)
    assert silent.asked == [] and measured.asked != []
    assert found.context.version == "1.2.3" and set(found) == {block.key for block in BLOCKS}


def test_of_several_versions_the_last_one_measured_is_known(store: Store) -> None:
    for version in ("2.0", "1.9"):
        Device(here(**SSH), store, runner=Far(version)).timings(BLOCKS)
    assert Device(here(**SSH), store, runner=Far("3.0")).known(BLOCKS).context.version == "1.9"


def test_a_device_that_was_never_measured_is_not_known(store: Store) -> None:
    device = Device(here(**SSH), store, runner=Far())
    with pytest.raises(NotMeasuredError, match="nothing was ever measured on local-"):
        device.known(BLOCKS)


def test_timings_beside_whole_requests_join_the_cache_and_are_told_apart_from_it(store: Store) -> None:
    device = Device(here(**SSH), store, runner=Far())
    device.timings(BLOCKS)
    _, between = device.requests_and_blocks({}, None, BLOCKS)  # type: ignore[arg-type]
    kept: dict[str, BlockTiming] = store.block_timings(device.context)
    assert {len(each.samples_ms) for each in kept.values()} == {4}  # two passes of two samples
    assert {len(each.samples_ms) for each in device.known(BLOCKS, between).values()} == {2}
    assert {len(each.samples_ms) for each in device.known(BLOCKS).values()} == {4}


@pytest.mark.parametrize(("tolerance", "times"), [(None, 1), (3.0, 1), (0.5, 2)])
def test_the_tolerance_of_the_profile_decides_what_is_measured_again(
    store: Store, tolerance: float | None, times: int
) -> None:
    """Timings were taken at a canary of 7 ms, and now it is 4."""
    profile = here(**SSH).model_copy(update={"protocol": Protocol(canary_tolerance=tolerance)})
    asked = []
    for canary in (7.0, 6.0 if tolerance is None else 4.0):
        far = Far(canary_ms=canary)
        device = Device(profile, store, runner=far)
        planned = device.plan(BLOCKS)
        device.timings(BLOCKS)
        assert [block.key for block in planned.new] == [b.key for request in far.asked for b in request.blocks]
        asked += [request for request in far.asked if request.blocks]
    assert len(asked) == times


def test_budgets_of_a_profile_are_the_constraints_of_a_search_that_names_none(tmp_path: Path) -> None:
    fields = here().model_dump(mode="json", by_alias=True)
    fields["budgets"] = {"ttft_ms": 1500, "memory_gib": 2.5, "vision_ms": 400}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(fields), encoding="utf-8")
    config = SearchConfig(space="micro", devices=[str(file)])
    texts = [constraint.text for constraint in define(config).constraints]
    here_only = [f"ttft_ms@{fields['id']} <= 1500", f"vision_ms@{fields['id']} <= 400"]
    assert texts[-3:] == [*here_only, "memory_gib <= 2.5"]
    told = config.model_copy(update={"constraints": ["tpot_ms <= 9"]})
    assert [constraint.text for constraint in define(told).constraints] == ["tpot_ms <= 9"]


def test_a_device_with_too_little_memory_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    fields = here().model_dump(mode="json", by_alias=True)
    fields["memory"]["usable_gib"] = 0.0001
    file, design = tmp_path / "mine.yaml", tmp_path / "design.yaml"
    file.write_text(yaml.safe_dump(fields), encoding="utf-8")
    design.write_text(yaml.safe_dump(SPACE.baseline), encoding="utf-8")
    problem = define(SearchConfig(space="micro", devices=[str(file)]))
    with pytest.raises(ProfileError, match=r"smallest design of micro needs 0\.00.* GiB, but memory\.usable_gib"):
        fitting(problem, problem.space.survey)
    for how in ("composed", "measured", "estimated"):
        with pytest.raises(ProfileError, match=r"is 0\.0001; take a smaller design or another device"):
            latency(design, device=str(file), how=How(how))


def test_a_budget_that_nothing_would_keep_is_refused() -> None:
    fields = here().model_dump(mode="json", by_alias=True) | {"budgets": {"energy_j": 5}}
    with pytest.raises(ValueError, match=r"budgets.energy_j"):
        HardwareProfile.model_validate(fields)
