"""Per-device fronts side by side, and whether the devices rank alike."""

from __future__ import annotations

import pytest

from nas.records import Evaluation, Latency, Quality
from nas.report_devices import compare, in_words


def evaluation(key: str, quality: float, here_ms: float, there_ms: float) -> Evaluation:
    def latency(ms: float) -> Latency:
        return Latency(0, 0, 0, ms, 0, 2, "composed", ms, ms)

    known = Quality(quality, quality, quality, "predicted:prior")
    return Evaluation(key, {}, "complete", known, {"a": latency(here_ms), "b": latency(there_ms)}, None, {}, {}, 0.0)


def test_each_device_has_its_own_front_and_the_ranks_are_compared() -> None:
    found = compare([evaluation("x", 0.9, 10, 30), evaluation("y", 0.8, 20, 20), evaluation("z", 0.7, 30, 10)], "ab")
    assert found is not None
    assert found["fronts"]["a"] == ["x"]
    assert set(found["fronts"]["b"]) == {"x", "y", "z"}
    assert found["pairs"][0]["kendall_tau"] == pytest.approx(-1.0)
    assert "Kendall's tau -1.00" in in_words(found)[-1]


def test_one_device_is_not_compared() -> None:
    assert compare([evaluation("x", 0.9, 10, 30)], ["a"]) is None
