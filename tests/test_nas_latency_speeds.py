"""What a device does of plain products, and profiles that it contradicts."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from runner_requests import here

import hardware_profiles
from hardware_profiles import HardwareProfile, ProfileError
from hardware_profiles.profile import Calibration
from nas.errors import RunnerError
from nas.latency.request import Request
from nas.latency.runner_messages import check_messages
from nas.latency.speeds import ROWS, STREAMED_BYTES, WIDTH, measure_speeds
from nas.latency.worker import serve


def profile(**peaks: Any) -> HardwareProfile:
    fields = here().model_dump(mode="json", by_alias=True)
    fields["compute"]["peak_tflops"] = peaks
    return HardwareProfile.model_validate(fields)


@pytest.fixture(scope="module")
def speeds() -> Calibration:
    """With a clock of one tick a call: every sample takes a second."""
    return measure_speeds(1, clock=itertools.count().__next__)


def test_rates_are_what_is_computed_and_moved_over_the_time(speeds: Calibration) -> None:
    assert speeds.gemm_gflops == {f"m{rows}": pytest.approx(2e-9 * rows * WIDTH**2) for rows in ROWS}
    assert speeds.gemv_gbps == speeds.read_gbps == pytest.approx(1e-9 * STREAMED_BYTES)
    assert (speeds.canary_ms, speeds.threads, speeds.cv) == (1000.0, 1, 0.0)


def test_a_sparse_rate_that_was_declared_dense_is_refused(speeds: Calibration) -> None:
    reached = max(speeds.gemm_gflops.values()) / 1000
    assert hardware_profiles.calibrated(profile(fp32=1.3 * reached), speeds).calibration == [speeds]
    with pytest.raises(ProfileError, match=r"^device local-.*half of a sparse one: halve it"):
        hardware_profiles.calibrated(profile(fp32=2.6 * reached), speeds)


def test_a_device_tells_its_speeds_when_asked_and_only_then() -> None:
    """In this process; the messages pass as JSON through the check of what a device says."""
    asked, said = Request(here(), speeds=True), list[dict[str, Any]]()
    serve(Request.from_json(asked.to_json()), said.append)
    lines = [json.dumps(message) for message in said]
    found = [one for one in check_messages(iter(lines), "here", asked) if one["kind"] == "speeds"]
    assert Calibration.model_validate(found[0]["calibration"]).gemm_gflops["m512"] > 0
    with pytest.raises(RunnerError, match="speeds that nobody asked for"):
        list(check_messages(iter(lines), "here", Request(here())))


def test_a_new_entry_takes_the_place_of_the_old_one_and_is_read_back(speeds: Calibration, tmp_path: Path) -> None:
    later = speeds.model_copy(update={"date": "2030-01-01T00:00:00+00:00"})
    other = later.model_copy(update={"threads": 2})
    found = profile()
    for entry in (speeds, later, other):
        found = hardware_profiles.calibrated(found, entry)
    assert found.calibration == [later, other]
    file = tmp_path / "mine.yaml"
    file.write_text(hardware_profiles.dump(found), encoding="utf-8")
    assert hardware_profiles.load(str(file)) == found
