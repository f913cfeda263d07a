"""Durations in the unit that a reader would choose."""

from nas.durations import about, duration


def test_what_is_expected_is_told_in_its_largest_unit() -> None:
    told = {40.2: "40 s", 360: "6 min", 110 * 60: "110 min", 7200: "2 h", 45 * 3600: "45 h", 3861 * 60: "3 days"}
    assert [about(seconds) for seconds in told] == list(told.values())


def test_what_is_over_is_told_to_the_second_or_minute() -> None:
    assert [duration(s) for s in (0.4, 59.4, 185, 7800)] == ["0 s", "59 s", "3 min 05 s", "2 h 10 min"]
