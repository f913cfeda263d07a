"""Peak memory of one request as the system sees it: resident pages, not a sum of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): resets the peak resident size

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """Resident bytes that loading a candidate took, and by how much one request went beyond them.

    `weights_bytes` is low where the process had free pages left over from building; the request's peak holds
    activations, the KV cache and what the runtime sets aside.
    """

    weights_bytes: int
    request_bytes: int


def measure_memory(load: Callable[[], Loaded], run: Callable[[Loaded], object]) -> tuple[Loaded, PeakMemory | None]:
    """Loads, runs once, and tells what both took. None on systems without /proc or where the peak cannot be reset."""
    _give_back()
    before = _resident("VmRSS")
    loaded = load()
    _give_back()
    after = _resident("VmRSS")
    can_reset = _reset_peak()
    run(loaded)
    peak = _resident("VmHWM")
    if before is None or after is None or peak is None or not can_reset:
        return loaded, None
    return loaded, PeakMemory(max(0, after - before), max(0, peak - after))


def _resident(field: str) -> int | None:
    if not STATUS.is_file():
        return None
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    return None


def _reset_peak() -> bool:
    try:
        CLEAR.write_text(RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def _give_back() -> None:
    """Free pages go back to the system, so that they are not counted as the candidate's."""
    import ctypes
    import gc

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
