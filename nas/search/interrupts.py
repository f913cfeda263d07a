"""Ctrl-C during trials: the first asks to stop after what is under way, the second stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupts:
    """`asked` is true after the first; the second raises KeyboardInterrupt. Elsewhere signals do what they did."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.asked = say, False
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self.say("stopping     after the trials that are under way; Ctrl-C again stops at once")
