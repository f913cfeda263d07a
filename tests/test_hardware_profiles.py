"""Profiles are checked as they are read; a machine is never taken for another."""

from __future__ import annotations

from pathlib import Path

import pytest

import hardware_profiles
from hardware_profiles import ProfileError


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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("capacity_gib:", "capacity_gb:", "did you mean 'capacity_gib'"),
        ("value: 24\n", "value: -24\n", "greater than 0"),
        ("unit: gpu", "unit: tpu", "'cpu', 'gpu' or 'npu'"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = Path(hardware_profiles.__file__).with_name("rtx-4090.yaml").read_text(encoding="utf-8")
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ProfileError, match=message) as caught:
        hardware_profiles.load(str(file))
    assert "\n" not in str(caught.value)
