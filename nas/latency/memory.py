"""Peak memory of one request as the system sees it: resident pages, not a sum of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nas.records import GIB

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): resets the peak resident size

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """What loading a candidate took, and what one request took beyond that at its peak, in bytes.

    Weights and the request are resident pages: what the runtime sets aside is in them. Weights come out low where the
    process had free pages left over from building. The KV cache is the size of its tensors after the last token.
    """

    weights_bytes: int
    request_bytes: int
    kv_bytes: int

    @property
    def activation_bytes(self) -> int:
        """The rest of the request: activations, and what the runtime sets aside."""
        return max(0, self.request_bytes - self.kv_bytes)

    @property
    def peak_bytes(self) -> int:
        return self.weights_bytes + self.request_bytes

    def in_gib(self) -> dict[str, float]:
        """By part, and the peak."""
        parts = {
            "weights": self.weights_bytes, "activations": self.activation_bytes, "kv": self.kv_bytes,
            "peak": self.peak_bytes,
        }  # fmt: skip
        return {f"{name}_gib": value / GIB for name, value in parts.items()}


def measure_memory(
    load: Callable[[], Loaded], run: Callable[[Loaded], object], kv_bytes: Callable[[Loaded], int]
) -> tuple[Loaded, PeakMemory | None]:
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
    return loaded, PeakMemory(max(0, after - before), max(0, peak - after), kv_bytes(loaded))


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
