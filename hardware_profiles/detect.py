"""Recognises this machine: processor, cores, last-level cache and memory, as a valid profile."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

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


def board_name() -> str | None:
    """Of a Raspberry Pi or a Jetson; None elsewhere."""
    file = Path("/proc/device-tree/model")
    return file.read_text(encoding="utf-8").strip("\x00 \n") if file.is_file() else None


def names_of_this_machine(unit: str) -> list[str]:
    """Names that a profile's `match` is searched in: of the processor or the GPUs, and of the board."""
    own = [processor_name()] if unit == "cpu" else [gpu["name"] for gpu in gpus()]
    board = board_name()
    return own if board is None else [*own, board]


def gpus(nvml: Any = None) -> list[dict[str, Any]]:
    """Name, memory, architecture and power limit of every NVIDIA GPU; none without a driver.

    `nvml` is the module pynvml (package nvidia-ml-py) by default. Never run on a machine with a GPU.
    """
    if nvml is None:
        try:
            import pynvml
        except ImportError:
            return []
        nvml = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return []
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        found.append(
            {
                "name": nvml.nvmlDeviceGetName(handle),
                "memory_gib": nvml.nvmlDeviceGetMemoryInfo(handle).total / 2**30,
                "arch": f"sm_{major}{minor}",
                "power_w": nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,
            }
        )
    return found


def detect_gpus(nvml: Any = None) -> list[HardwareProfile]:
    """A profile for every NVIDIA GPU here. Peaks and bandwidth are null: the driver does not tell them."""
    profiles = []
    for gpu in gpus(nvml):
        slug = re.sub(r"[^a-z0-9]+", "-", gpu["name"].lower()).strip("-")
        capacity = round(gpu["memory_gib"], 2)
        profiles.append(
            HardwareProfile.model_validate(
                {
                    "schema": 1,
                    "id": f"local-{slug}",
                    "identity": {
                        "vendor": "NVIDIA",
                        "model": gpu["name"],
                        "class": "workstation",
                        "unit": "gpu",
                        "arch": gpu["arch"],
                        "match": {"machine": platform.machine(), "name_regex": f"^{re.escape(gpu['name'])}$"},
                    },
                    "compute": {},
                    "memory": {
                        "capacity_gib": {"value": capacity, "source": "NVML", "kind": "measured"},
                        "usable_gib": {"value": round(0.94 * capacity, 2), "source": "94 % of it", "kind": "assumed"},
                        "levels": [{"name": "dram"}],
                    },
                    "power": {"tdp_w": {"value": gpu["power_w"], "source": "NVML limit", "kind": "measured"}},
                    "runtimes": [{"name": "torch-eager", "dtypes": ["fp32", "fp16"]}],
                }
            )
        )
    return profiles


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
