"""Durations as people say them: exactly where they are over, roughly where they are expected."""

from __future__ import annotations

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
SAID_UP_TO_S = {"s": (90, 1), "min": (2 * HOUR_S, MINUTE_S), "h": (2 * DAY_S, HOUR_S)}


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < MINUTE_S:
        return f"{whole} s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S:02d} s"
    return f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S:02d} min"


def about(seconds: float) -> str:
    """`40 s`, `6 min`, `5 h`, `3 days`: seconds up to a minute and a half, minutes to two hours, hours to two days."""
    for unit, (most_s, unit_s) in SAID_UP_TO_S.items():
        if seconds < most_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds / DAY_S:.0f} days"
