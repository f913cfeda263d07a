"""HardwareProfile: one device and compute unit. Every figure says its value, its source and how it was obtained."""

from __future__ import annotations

import platform
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["datasheet", "derived", "measured", "assumed"]


class ProfileError(ValueError):
    """A hardware profile that breaks a rule; the message names rule, value and next step."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Record):
    """A number with its source; a bare number in YAML is `assumed`. null where nothing was read."""

    value: float | None = Field(gt=0)
    source: str | None = None
    kind: Kind = "assumed"

    @model_validator(mode="before")
    @classmethod
    def _bare_number(cls, data: Any) -> Any:
        return {"value": data} if data is None or isinstance(data, int | float) else data


class Match(_Record):
    """How this machine is recognised as the device."""

    machine: str = Field(description="platform.machine(), e.g. x86_64 or aarch64")
    name_regex: str = Field(description="searched in the processor's or GPU's name")


class Identity(_Record):
    vendor: str
    model: str
    device_class: Literal["phone", "edge_board", "laptop", "workstation", "server"]
    unit: Literal["cpu", "gpu", "npu"]
    match: Match | None = None


class Compute(_Record):
    peak_tflops: dict[Literal["fp32", "tf32", "fp16", "bf16", "int8"], Figure] = Field(
        default_factory=dict, description="dense, on the unit that runs the GEMM"
    )
    cores: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)


class Memory(_Record):
    capacity_gib: Figure
    usable_gib: Figure = Field(description="what a model may take; budget checks use this one")
    bandwidth_gb_per_s: Figure
    last_level_cache_mib: Figure = Figure(value=None)


class Runtime(_Record):
    name: str
    dtypes: list[str]


class HardwareProfile(_Record):
    """Where a model runs."""

    format: Literal[1] = 1
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    identity: Identity
    compute: Compute
    memory: Memory
    runtimes: list[Runtime] = Field(min_length=1)
    power_w: Figure = Figure(value=None)

    @property
    def measuring_threads(self) -> int:
        """Threads that every measurement of this device runs with; timings are kept under this number."""
        return self.compute.threads or 1

    def matches_this_machine(self) -> bool:
        """Whether a measurement here would be one of this device."""
        from hardware_profiles.detect import processor_name

        match = self.identity.match
        if match is None or match.machine != platform.machine():
            return False
        return re.search(match.name_regex, processor_name()) is not None
