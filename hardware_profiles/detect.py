"""Recognises this machine: processor, cores, last-level cache and memory, as a valid profile."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from hardware_profiles.profile import HardwareProfile

CACHE_FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")


def processor_name() -> str:
    """The processor's model name, as the operating system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", info.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def names_of_this_machine(unit: str) -> list[str]:
    """Names that a profile's `match` is searched in: of the processor, or of the GPUs."""
    return [processor_name()] if unit == "cpu" else []


def last_level_cache_mib() -> float | None:
    """Size of the largest cache that the first core sees; None where the system does not say."""
    sizes = [file.read_text(encoding="utf-8").strip() for file in CACHE_FOLDER.glob("index*/size")]
    units = {"K": 1 / 1024, "M": 1.0}
    return max((float(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units), default=None)


def detect() -> HardwareProfile:
    """The CPU of this machine. Bandwidth and peak are null: calibration measures blocks instead of guessing them."""
    import psutil

    name = processor_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gib = psutil.virtual_memory().total / 2**30
    slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(.*?\)|@.*$|\b(cpu|processor|with)\b", "", name.lower())).strip("-")
    return HardwareProfile.model_validate(
        {
            "id": f"local-{slug or platform.machine().lower().replace('_', '-')}-{cores}c",
            "identity": {
                "vendor": name.split()[0],
                "model": name,
                "class": "laptop" if getattr(psutil, "sensors_battery", lambda: None)() else "workstation",
                "unit": "cpu",
                "match": {"machine": platform.machine(), "name_regex": f"^{re.escape(name)}$"},
            },
            "compute": {"cores": cores, "threads": cores},
            "memory": {
                "capacity_gib": {"value": round(gib, 2), "source": "psutil", "kind": "measured"},
                "usable_gib": {"value": round(gib * 0.8, 2), "source": "80 % of capacity", "kind": "assumed"},
                "levels": [
                    {
                        "name": "last-level-cache",
                        "size_mib": {"value": last_level_cache_mib(), "source": "sysfs", "kind": "measured"},
                    },
                    {"name": "dram"},
                ],
            },
            "runtimes": [{"name": "torch-eager", "dtypes": ["fp32"]}],
        }
    )
