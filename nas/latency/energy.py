"""Energy of a request as the processor counts it (RAPL), where the system lets its counters be read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
PACKAGE = r"intel-rapl:\d+"  # AMD's bear the same name; what lies deeper is part of a package
NOT_COUNTED = f"no counter can be read on the device ({POWERCAP}/intel-rapl:*/energy_uj); a virtual machine has none"


class EnergyMeter:
    """Joules that the processor's packages took while something ran: idle power and other programs are in them.

    Counters move about once a millisecond, and begin again at their end.
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        every = sorted(folder for folder in root.glob("intel-rapl:*") if re.fullmatch(PACKAGE, folder.name))
        self.packages = [folder for folder in every if (_read(folder, "name") or "").startswith("package")]
        self.joules: dict[str, list[float]] = {}

    @contextmanager
    def around(self, key: str) -> Iterator[None]:
        """Adds what was taken inside to the samples of `key`."""
        before = [_microjoules(folder) for folder in self.packages]
        yield
        taken = [
            _difference(folder, start, _microjoules(folder))
            for folder, start in zip(self.packages, before, strict=True)
        ]
        known = [one for one in taken if one is not None]
        if known and len(known) == len(taken):
            self.joules.setdefault(key, []).append(1e-6 * sum(known))

    def mean_j(self, key: str) -> float | None:
        """Over all samples; None where nothing could be read."""
        found = self.joules.get(key)
        return sum(found) / len(found) if found else None


def _difference(folder: Path, before: int | None, after: int | None) -> int | None:
    if before is None or after is None:
        return None
    if after >= before:
        return after - before
    end = _read(folder, "max_energy_range_uj")
    return None if end is None else after - before + int(end)


def _microjoules(folder: Path) -> int | None:
    found = _read(folder, "energy_uj")
    return None if found is None else int(found)


def _read(folder: Path, name: str) -> str | None:
    """None where there is no such file, or it is kept from this user."""
    try:
        return (folder / name).read_text(encoding="ascii").strip()
    except OSError:
        return None
