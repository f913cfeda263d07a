"""Where nothing keeps the limits, the gate names the nearest candidate and what it misses by how much."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import hardware_profiles
from nas.config import SearchConfig
from nas.cost import cost
from nas.errors import NothingFeasibleError
from nas.search.gate import feasible, fitting
from nas.search.problem import Problem, define


def problem(*constraints: str, device: str = "raspberry-pi-5-8gb") -> Problem:
    return define(SearchConfig(space="micro", devices=[device], constraints=list(constraints)))


def refusal(asked: Problem) -> str:
    with pytest.raises(NothingFeasibleError) as caught:
        feasible(asked, fitting(asked, asked.space.survey))
    return str(caught.value)


def test_the_smallest_design_is_nearest_to_a_limit_on_params() -> None:
    asked = problem("params <= 10")
    smallest = min(asked.space.survey, key=lambda one: cost(one, asked.workload).params)
    excess = cost(smallest, asked.workload).params - 10
    assert f"no candidate of micro meets the constraints; nearest: {smallest}: " in refusal(asked)
    assert refusal(asked).endswith(f"'params <= 10' is missed by {excess:.4g}")


def test_of_limits_that_exclude_each_other_only_what_is_missed_is_named() -> None:
    said = refusal(problem("params >= 1e12", "memory_gib <= 100", "memory_gib >= 200% of baseline (soft)"))
    assert "'params >= 1e12' is missed by 1e+12" in said and "memory_gib" not in said


def test_a_device_that_leaves_room_for_none_that_keeps_the_limits_is_named(tmp_path: Path) -> None:
    asked = problem()
    largest = max(cost(one, asked.workload).memory_gib for one in asked.space.survey)
    fields = hardware_profiles.load("raspberry-pi-5-8gb").model_dump(mode="json", by_alias=True)
    fields["memory"]["usable_gib"] = largest * (1 - 1e-6)
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(fields), encoding="utf-8")
    said = refusal(problem(f"memory_gib >= {largest!r}", device=str(file)))
    assert f"'memory.usable_gib of raspberry-pi-5-8gb is {largest:g}' is missed by {largest * 1e-6:.4g}" in said


def test_where_no_fitting_candidate_is_measured_the_limits_are_not_blamed() -> None:
    with pytest.raises(NothingFeasibleError, match="has a latency on raspberry-pi-5-8gb: of so many tokens"):
        feasible(problem("params <= 1e12"), [])
