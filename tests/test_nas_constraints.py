"""Constraints are read as written, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import search_spaces
from nas.constraints import METRICS, parse, resolve
from nas.errors import ConfigError
from search_spaces import SpaceError

POSITIVE = st.floats(min_value=1e-3, max_value=1e9)


@given(st.sampled_from(METRICS), st.sampled_from(["<=", ">="]), POSITIVE, POSITIVE)
def test_a_violation_is_the_excess_in_the_metrics_unit(metric: str, sign: str, bound: float, value: float) -> None:
    violation = parse(f"{metric} {sign} {bound!r}").violation(value, None)
    assert violation == (value - bound if sign == "<=" else bound - value)


@given(POSITIVE)
def test_a_relative_bound_is_that_share_of_the_baseline(baseline: float) -> None:
    constraint = parse("latency_ms <= 60% of baseline")
    assert constraint.limit(baseline) == pytest.approx(0.6 * baseline)
    assert constraint.violation(baseline, baseline) == pytest.approx(0.4 * baseline)


def test_spaces_do_not_matter_and_the_device_is_kept() -> None:
    constraint = parse("  ttft_ms@raspberry-pi-5<=500 ")
    assert (constraint.metric, constraint.device, constraint.bound, constraint.upper) == (
        "ttft_ms", "raspberry-pi-5", 500.0, True
    )  # fmt: skip


def test_a_relative_bound_without_its_baseline_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs the baseline's latency_ms"):
        parse("latency_ms <= 60% of baseline").violation(1.0, None)


def test_percent_of_a_candidate_file_becomes_an_absolute_bound(tmp_path: Path) -> None:
    micro = search_spaces.load("micro")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(micro.candidates[3].to_dict()))
    constraint = parse(f"latency_ms <= 60% of {path}")
    with pytest.raises(ConfigError, match="which are not known"):
        constraint.limit(100.0)
    assert resolve(constraint, lambda _: None) == constraint
    figures = {micro.candidates[3].key: 50.0}
    assert resolve(constraint, lambda candidate: figures[candidate.key]).violation(31.0, None) == pytest.approx(1.0)


def test_the_baseline_is_named_in_any_case() -> None:
    assert parse("latency_ms <= 60% of Baseline").limit(50.0) == pytest.approx(30.0)


def test_a_constraint_without_a_file_is_resolved_already() -> None:
    constraint = parse("latency_ms <= 60% of baseline")
    assert resolve(constraint, lambda _: 1.0) is constraint


def test_a_file_that_holds_no_candidate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"constraint 'params <= 60% of .*none.yaml': cannot read"):
        resolve(parse(f"params <= 60% of {tmp_path}/none.yaml"), lambda _: 1.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("latecy_ms <= 5", "did you mean 'latency_ms'"),
        ("colour <= 5", "known: quality"),
        ("latency_ms < 5", "must read like"),
        ("latency_ms", "must read like"),
        ("latency_ms <= soon", "must read like"),
        ("latency_ms <= 5 of baseline", "must read like"),
        ("latency_ms <= --5", "must be a number"),
        ("latency_ms <= -5", "must be positive"),
        ("memory_gib <= 0", "must be positive"),
        ("memory_gib <= 1e999", "finite"),
        ("memory_gib@pi <= 4", "take a device"),
    ],
)
def test_a_mistake_is_one_line_with_rule_and_value(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        parse(text)
    assert text.strip() in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_soft_constraint_reads_like_a_hard_one() -> None:
    hard, soft = parse("quality >= 98% of baseline"), parse("quality >= 98% of baseline (soft)")
    assert (hard.soft, soft.soft) == (False, True)
    assert soft.violation(0.5, 0.6) == hard.violation(0.5, 0.6) == pytest.approx(0.98 * 0.6 - 0.5)
    assert soft.text == "quality >= 98% of baseline (soft)"
