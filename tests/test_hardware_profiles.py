"""Profiles are checked as they are read; a machine is never taken for another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
import yaml

import hardware_profiles
from hardware_profiles import HardwareProfile, ProfileError


@pytest.mark.parametrize("name", hardware_profiles.names())
def test_every_shipped_profile_is_valid_and_bears_its_files_name(name: str) -> None:
    assert hardware_profiles.load(name).id == name


def test_this_machine_is_detected_and_survives_a_round_trip(tmp_path: Path) -> None:
    found = hardware_profiles.detect()
    file = tmp_path / "here.yaml"
    file.write_text(hardware_profiles.dump(found), encoding="utf-8")
    assert hardware_profiles.load(str(file)) == found
    assert found.matches_this_machine()


def test_another_device_is_not_this_machine() -> None:
    assert not hardware_profiles.load("rtx-4090").matches_this_machine()


def test_an_unknown_device_names_the_near_miss() -> None:
    with pytest.raises(ProfileError, match="did you mean 'rtx-4090'"):
        hardware_profiles.load("rtx-490")


MISTAKES = [
    ("capacity_gib:", "capacity_gb:", "did you mean 'capacity_gib'"),
    ("bandwidth_gbps:", "bandwidth:", "did you mean 'bandwidth_gbps'"),
    ("schema: 1", "format: 1", "unknown key 'format'"),
    ("{value: 24,", "{value: -24,", "greater than 0"),
    ("{value: 24,", "{value: .nan,", "finite number"),
    ("{value: 22.5,", "{value: 25,", "usable_gib must be at most capacity_gib"),
    ('capacity_gib: {value: 24, source: "waredb.com", kind: datasheet}', "capacity_gib: 24 GB", "without a unit"),
    ("unit: gpu", "unit: tpu", "'cpu', 'gpu' or 'npu'"),
    ('660.6, source: "waredb.com, topcpu.net"', '1321, source: "sparse TOPS"', "must be the dense rate"),
    ("runtimes:", "runner: {kind: ssh, host: 10.0.0.7}\nruntimes:", "unknown key 'runner.host'"),
    ("runtimes:", "runner: {kind: ssh, host_ref: me@10.0.0.7}\nruntimes:", "host_ref"),
    ("runtimes:", "runner: {kind: ssh}\nruntimes:", "kind ssh needs host_ref"),
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = Path(hardware_profiles.__file__).with_name("rtx-4090.yaml").read_text(encoding="utf-8")
    assert old in text
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ProfileError, match=message) as caught:
        hardware_profiles.load(str(file))
    assert "\n" not in str(caught.value)


def calibrated(gemm_gflops: float, gemv_gbps: float = 500) -> dict[str, Any]:
    fields = hardware_profiles.load("rtx-4090").model_dump(mode="json", by_alias=True)
    entry = {"date": "2026-01-01", "runtime": "torch-eager", "version": "2", "dtype": "int8", "canary_ms": 1.0}
    return fields | {"calibration": [{**entry, "gemm_gflops": {"m512": gemm_gflops}, "gemv_gbps": gemv_gbps}]}


def test_a_peak_out_of_reach_of_its_own_measurements_is_refused() -> None:
    """A sparse rate declared dense: products reach less than half of it."""
    HardwareProfile.model_validate(calibrated(500e3))
    with pytest.raises(ValueError, match="half of a sparse one"):
        HardwareProfile.model_validate(calibrated(280e3))


def test_a_peak_below_its_own_measurements_is_refused() -> None:
    with pytest.raises(ValueError, match="is below the 900"):
        HardwareProfile.model_validate(calibrated(900e3))
    with pytest.raises(ValueError, match="bandwidth_gbps"):
        HardwareProfile.model_validate(calibrated(500e3, gemv_gbps=1500))


@pytest.mark.parametrize("name", hardware_profiles.names())
def test_every_shipped_figure_has_a_source(name: str) -> None:
    def figures(fields: Any) -> Iterator[dict[str, Any]]:
        if isinstance(fields, dict):
            if fields.keys() == {"value", "source", "kind"}:
                yield fields
            for value in fields.values():
                yield from figures(value)
        elif isinstance(fields, list):
            for value in fields:
                yield from figures(value)

    found = [f for f in figures(hardware_profiles.load(name).model_dump()) if f["value"] is not None]
    assert all(figure["source"] for figure in found)


@pytest.mark.parametrize("name", hardware_profiles.names())
def test_narrower_formats_are_never_slower(name: str) -> None:
    peaks = hardware_profiles.load(name).compute.peak_tflops
    known = [peaks[dtype].value or 0 for dtype in ("fp32", "fp16", "int8") if dtype in peaks]
    assert known == sorted(known)


def test_the_schema_accepts_what_is_shipped() -> None:
    schema = HardwareProfile.model_json_schema(by_alias=True)
    for name in hardware_profiles.names():
        text = Path(hardware_profiles.__file__).with_name(f"{name}.yaml").read_text(encoding="utf-8")
        assert set(yaml.safe_load(text)) <= set(schema["properties"])
        jsonschema.validate(hardware_profiles.load(name).model_dump(mode="json", by_alias=True), schema)


class Driver:
    """A stand-in for the module pynvml with one GPU."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return "NVIDIA GeForce RTX 4090"

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:  # noqa: N802
        return 8, 9

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(total=24 * 2**30)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:  # noqa: N802
        return 450_000


def test_a_gpu_becomes_a_valid_profile() -> None:
    (found,) = hardware_profiles.detect_gpus(Driver())
    assert (found.id, found.identity.arch) == ("local-nvidia-geforce-rtx-4090", "sm_89")
    assert found.memory.capacity_gib.value == 24 and found.power.tdp_w.value == 450
    assert HardwareProfile.model_validate(yaml.safe_load(hardware_profiles.dump(found))) == found


def test_a_driver_that_does_not_start_means_no_gpu() -> None:
    class Broken(Driver):
        def nvmlInit(self) -> None:  # noqa: N802
            raise self.NVMLError

    assert hardware_profiles.detect_gpus(Broken()) == []
