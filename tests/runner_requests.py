"""Requests small enough to be measured for real in a test, and what their answers must hold."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any

import hardware_profiles
import nas.workload
import search_spaces
from hardware_profiles import HardwareProfile
from nas.latency.blocks import BlockSpec, BlockTiming
from nas.latency.request import block_timing
from nas.latency.terms import needed

WORKLOAD = nas.workload.load("vqa-short")
SPACE = search_spaces.load("micro")
CANDIDATE = SPACE.baseline_candidate
BLOCKS = tuple(needed(CANDIDATE, WORKLOAD)[:3])
EVERY_BLOCK = tuple({b.key: b for c in SPACE.candidates for b in needed(c, WORKLOAD)}.values())


def here(**runner: Any) -> HardwareProfile:
    """This machine, with few threads and a small cache, reached as `runner` says."""
    fields = hardware_profiles.detect().model_dump(mode="json", by_alias=True)
    fields["compute"]["threads"] = 1
    fields["memory"]["levels"] = [{"name": "l2", "size_mib": 1}, {"name": "dram"}]
    return HardwareProfile.model_validate(fields | {"runner": runner})


def timing(block: BlockSpec, **changed: Any) -> dict[str, Any]:
    """A timing as a device would send it."""
    return asdict(BlockTiming(asdict(block), (1.0, 2.0), 3.0, "2026-01-01T00:00:00+00:00", False)) | changed


def assert_measured(messages: list[dict[str, Any]], blocks: tuple[BlockSpec, ...] = BLOCKS) -> None:
    """Environment first, `done` last, and every block with its samples between."""
    assert messages[0]["kind"] == "environment" and messages[-1]["kind"] == "done"
    assert messages[0]["canary_ms"] > 0 and messages[0]["runtime_version"]
    found = {key: block_timing(fields) for m in messages for key, fields in m.get("timings", {}).items()}
    assert set(found) == {block.key for block in blocks}
    assert all(each.value_ms > 0 and len(each.samples_ms) >= 8 for each in found.values())


def ends(process: int, within_s: float = 20) -> bool:
    """Whether the process is gone, or a zombie, before the time is over."""
    for _ in range(int(within_s / 0.05)):
        try:
            os.kill(process, 0)
            if Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        Event().wait(0.05)
    return False


def is_empty(folder: Path | str, within_s: float = 10) -> bool:
    """Soon: a device clears up by itself when the conversation is over."""
    for _ in range(int(within_s / 0.05)):
        if not any(Path(folder).iterdir()):
            return True
        Event().wait(0.05)
    return False
