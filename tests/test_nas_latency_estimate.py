"""Datasheet estimates: ordered as the work is, inside their interval, and refused where a figure is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import hardware_profiles
import nas.workload
import search_spaces
from cli.main import build_app
from hardware_profiles import ProfileError
from nas.latency.estimate import estimate

WORKLOAD = nas.workload.load("vqa-short")
POCKET = search_spaces.load("pocket")


@pytest.mark.parametrize("name", hardware_profiles.names())
def test_every_shipped_device_gives_an_interval_around_its_middle(name: str) -> None:
    found = estimate(POCKET.baseline_candidate, WORKLOAD, hardware_profiles.load(name))
    assert found.label == "estimated:datasheet"
    assert 0 < found.low_ms < found.latency_ms < found.high_ms


def test_a_deeper_language_model_is_never_faster() -> None:
    device = hardware_profiles.load("raspberry-pi-5-8gb")
    base = POCKET.baseline_candidate
    found = [estimate(base.model_copy(update={"lm_depth": depth}), WORKLOAD, device) for depth in (2, 10, 30)]
    totals = [latency.latency_ms for latency in found]
    assert totals == sorted(totals) and totals[0] < totals[-1]


def test_decode_of_a_deep_model_is_bound_by_the_bandwidth() -> None:
    """Weights of 30 layers and the vocabulary, 538 MB, over 65 % of 17.07 GB/s: 48.5 ms, plus 7.3 ms of kernels."""
    base = POCKET.baseline_candidate.model_copy(update={"lm_depth": 30})
    found = estimate(base, WORKLOAD, hardware_profiles.load("raspberry-pi-5-8gb"))
    assert found.tpot_ms == pytest.approx(538.1e6 / (0.65 * 17.07e9) * 1e3 + 7.3, rel=0.05)


def test_a_device_without_its_figures_is_refused_by_name_of_the_figure() -> None:
    with pytest.raises(ProfileError, match=r"bandwidth_gbps of the outermost"):
        estimate(POCKET.baseline_candidate, WORKLOAD, hardware_profiles.detect())


def test_the_command_estimates_a_device_that_is_not_here(tmp_path: Path) -> None:
    file = tmp_path / "candidate.yaml"
    file.write_text(yaml.safe_dump(POCKET.baseline_candidate.to_dict()), encoding="utf-8")
    result = CliRunner().invoke(
        build_app(), ["latency", str(file), "--device", "rtx-4090", "--how", "estimated", "--json"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["label"] == "estimated:datasheet"
