"""nas.latency.energy: counters of the processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.latency.energy import EnergyMeter


def package(root: Path, index: int, name: str, microjoules: int) -> Path:
    folder = root / f"intel-rapl:{index}"
    folder.mkdir()
    for file, value in {"name": name, "energy_uj": microjoules, "max_energy_range_uj": 1_000_000_000}.items():
        (folder / file).write_text(f"{value}\n", encoding="ascii")
    return folder


def test_packages_are_summed_over_their_end_and_the_rest_of_the_board_is_not(tmp_path: Path) -> None:
    first, second = package(tmp_path, 0, "package-0", 5_000_000), package(tmp_path, 1, "package-1", 999_000_000)
    board = package(tmp_path, 2, "psys", 0)
    (tmp_path / "intel-rapl:0:0").mkdir()  # cores of the first package, which are in it already
    meter = EnergyMeter(tmp_path)
    for _ in range(2):
        with meter.around("request"):
            (first / "energy_uj").write_text("7000000\n", encoding="ascii")
            (second / "energy_uj").write_text("2000000\n", encoding="ascii")
            (board / "energy_uj").write_text("900000000\n", encoding="ascii")
        (first / "energy_uj").write_text("5000000\n", encoding="ascii")
        (second / "energy_uj").write_text("999000000\n", encoding="ascii")
    assert meter.mean_j("request") == pytest.approx(2 + 3)


def test_a_machine_without_counters_has_no_energy(tmp_path: Path) -> None:
    meter = EnergyMeter(tmp_path)
    with meter.around("request"):
        pass
    assert meter.mean_j("request") is None
