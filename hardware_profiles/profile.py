"""HardwareProfile: one device and compute unit. Every figure says its value, its source and how it was obtained."""

from __future__ import annotations

import platform
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["datasheet", "derived", "measured", "assumed"]
DeviceClass = Literal["phone", "edge_board", "laptop", "workstation", "server"]
PeakDtype = Literal["fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "int8", "int4"]
LowEnd = Literal["min", "p25"]
REFERENCE = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"  # a name in the user's own config; an address would not fit

Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]

# A large matrix product reaches 60 to 87 % of a dense peak in what was published; of a sparse one at most 44 %.
LEAST_SHARE_OF_PEAK = 0.45
MEASUREMENT_SLACK = 1.05


class ProfileError(ValueError):
    """A hardware profile that breaks a rule; the message names rule, value and next step."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Figure(_Record):
    """A number with its source, in the unit that ends its key. A bare number is `assumed`; null = nothing was read."""

    value: float | None = Field(gt=0, allow_inf_nan=False)
    source: str | None = None
    kind: Kind = "assumed"

    @model_validator(mode="before")
    @classmethod
    def _bare_number(cls, data: Any) -> Any:
        if isinstance(data, str):
            raise ValueError("must be a number in the unit that ends the key, without a unit of its own")
        return {"value": data} if data is None or isinstance(data, int | float) else data


UNKNOWN = Figure(value=None)


class Match(_Record):
    """How this machine is recognised as the device."""

    machine: str = Field(description="platform.machine(), e.g. x86_64 or aarch64")
    name_regex: str = Field(description="searched in the name of the processor, board or GPU")

    @model_validator(mode="after")
    def _compiles(self) -> Match:
        try:
            re.compile(self.name_regex)
        except re.error as error:
            raise ValueError(f"name_regex is no regular expression: {error}") from None
        return self


class Identity(_Record):
    vendor: str
    model: str
    device_class: DeviceClass = Field(alias="class")
    unit: Literal["cpu", "gpu", "npu"]
    arch: str | None = Field(default=None, description="for the reader, e.g. sm_87, znver4, cortex-a76")
    match: Match | None = None


class Compute(_Record):
    """Peaks are dense (no structured sparsity), on the unit that runs the matrix product."""

    peak_tflops: dict[PeakDtype, Figure] = Field(default_factory=dict)
    cores: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    clock_mhz: Positive | None = Field(default=None, description="for the reader")

    @model_validator(mode="after")
    def _dense(self) -> Compute:
        for dtype, figure in self.peak_tflops.items():
            source = figure.source or ""
            if figure.kind == "datasheet" and "sparse" in source and "dense" not in source:
                raise ValueError(
                    f"peak_tflops.{dtype} must be the dense rate, but its source says sparse; "
                    f"halve it and write kind: derived"
                )
        return self


class Level(_Record):
    """One level of the memory, a cache or DRAM."""

    name: str
    size_mib: Figure = UNKNOWN
    bandwidth_gbps: Figure = Field(default=UNKNOWN, description="10^9 bytes per second")


class Memory(_Record):
    capacity_gib: Figure
    usable_gib: Figure = Field(description="what a model may take; budget checks use this one")
    unified: bool = Field(default=False, description="for the reader: shared with the CPU, see usable_gib")
    levels: list[Level] = Field(default_factory=list, description="outermost (DRAM) last")

    @model_validator(mode="after")
    def _usable_fits(self) -> Memory:
        capacity, usable = self.capacity_gib.value, self.usable_gib.value
        if capacity is not None and usable is not None and usable > capacity:
            raise ValueError(f"usable_gib must be at most capacity_gib ({capacity:g}), but is {usable:g}")
        return self

    @property
    def bandwidth_gbps(self) -> Figure:
        """Of the outermost level, in 10^9 bytes per second."""
        return self.levels[-1].bandwidth_gbps if self.levels else UNKNOWN

    @property
    def last_level_cache_mib(self) -> float | None:
        """Size of the largest cache; None where the profile does not say."""
        sizes = [level.size_mib.value for level in self.levels if level.name != "dram"]
        return max((size for size in sizes if size is not None), default=None)


class Power(_Record):
    """For the reader: a board in another power mode is another device, with a profile of its own."""

    mode: str | None = None
    tdp_w: Figure = UNKNOWN
    locked_clocks: bool = False


class Runtime(_Record):
    """What latency is defined for, together with the device."""

    name: str
    dtypes: list[str] = Field(min_length=1, description="for the reader")
    version: str | None = Field(default=None, description="measurements with any other are refused; null = with any")
    threads: int | None = Field(default=None, ge=1, description="in place of compute.threads")
    env: dict[str, str] = Field(default_factory=dict, description="set where it is measured")


class Efficiency(_Record):
    """Share of the datasheet's figure that is reached."""

    low: Share
    mid: Share
    high: Share

    @model_validator(mode="after")
    def _ordered(self) -> Efficiency:
        if not self.low <= self.mid <= self.high:
            raise ValueError(f"must be low <= mid <= high, but is {self.low:g}, {self.mid:g}, {self.high:g}")
        return self


class Estimator(_Record):
    """Used only where nothing is measured."""

    eta_compute: Efficiency | None = None
    eta_memory: Efficiency | None = None
    op_overhead_us: Annotated[float, Field(ge=0)] | None = None
    layer_overhead_us: Annotated[float, Field(ge=0)] | None = None


class Calibration(_Record):
    """What `nas devices calibrate` saw of the device in one session."""

    date: str
    runtime: str
    version: str
    dtype: str = "fp32"
    threads: int | None = None
    canary_ms: Positive
    gemm_gflops: dict[str, Positive] = Field(default_factory=dict, description="by rows of the left matrix: m1, m64")
    gemv_gbps: Positive | None = None
    read_gbps: Positive | None = None
    op_overhead_us: Annotated[float, Field(ge=0)] | None = None
    n: int | None = None
    cv: float | None = None
    temperature_c: tuple[float | None, float | None] | None = None


class Runner(_Record):
    """How measurements reach the device. `*_ref` names an entry of the user's own config; no addresses here."""

    kind: Literal["local", "ray", "ssh", "adb"] = "local"
    label: dict[str, str] = Field(default_factory=dict, description="ray: labels of the node")
    slot: str | None = Field(default=None, description="ray: custom resource with capacity 1 on that node")
    host_ref: str | None = Field(default=None, pattern=REFERENCE, description="ssh: entry of the user's config")
    serial_ref: str | None = Field(default=None, pattern=REFERENCE, description="adb: entry of the user's config")
    workdir: str | None = None
    cpu_mask: str | None = Field(default=None, pattern=r"^(0x)?[0-9a-fA-F]+$", description="taskset mask")
    cooldown_s: Annotated[float, Field(ge=0)] = 0
    slots: Literal[1] = Field(default=1, description="measurements at once: never more than one")

    @model_validator(mode="after")
    def _complete(self) -> Runner:
        needed = {"ssh": "host_ref", "adb": "serial_ref", "ray": "slot"}.get(self.kind)
        if needed and getattr(self, needed) is None:
            raise ValueError(f"kind {self.kind} needs {needed}")
        return self


class Protocol(_Record):
    """Where a device needs another measuring protocol than the program's own; null = the program's."""

    rounds: int | None = Field(default=None, ge=3, description="of whole requests, and at most of blocks in a pass")
    warmup: int | None = Field(default=None, ge=1, description="untimed calls of each block before its first round")
    estimator: LowEnd = Field(
        default="p25", description="what counts: the minimum, or the lower quartile where that is near it"
    )
    max_cv: Positive | None = Field(default=None, description="median / lower quartile - 1 that counts as noisy")
    canary_tolerance: Positive | None = Field(
        default=None, description="timings of a session that was slower than now by more are measured again"
    )


class Budgets(_Record):
    """What the user of this device accepts: constraints of a search that names none of its own."""

    ttft_ms: Positive | None = None
    tpot_ms: Positive | None = None
    latency_ms: Positive | None = None
    vision_ms: Positive | None = Field(default=None, description="of the encoder alone")
    memory_gib: Positive | None = None
    energy_j: None = Field(
        default=None, description="energy is measured of whole requests only, never composed: leave it null"
    )

    @property
    def bounds(self) -> dict[str, float]:
        """By metric, those that are set."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


class HardwareProfile(_Record):
    """Where a model runs: one device and one of its compute units."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    identity: Identity
    compute: Compute
    memory: Memory
    power: Power = Power()
    runtimes: list[Runtime] = Field(min_length=1)
    estimator: Estimator = Estimator()
    calibration: list[Calibration] = Field(default_factory=list, description="written by the tool, never by hand")
    runner: Runner = Runner()
    protocol: Protocol = Protocol()
    budgets: Budgets = Budgets()

    @model_validator(mode="after")
    def _peaks_fit_measurements(self) -> HardwareProfile:
        """A dense peak is neither below what was measured nor out of its reach."""
        for entry in self.calibration:
            figure = self.compute.peak_tflops.get(entry.dtype)  # type: ignore[call-overload]
            best = max(entry.gemm_gflops.values(), default=0.0) / 1000
            if figure is not None and figure.value is not None and best:
                where = f"compute.peak_tflops.{entry.dtype} ({figure.value:g} TFLOPS)"
                if best > MEASUREMENT_SLACK * figure.value:
                    raise ValueError(f"{where} is below the {best:g} that its own calibration measured; raise the peak")
                if best < LEAST_SHARE_OF_PEAK * figure.value:
                    raise ValueError(
                        f"{where} is beyond its own measurements: matrix products reached {best:.3g} TFLOPS, under "
                        f"{LEAST_SHARE_OF_PEAK:.0%} of it; a dense peak is half of a sparse one: halve it or give null "
                        f"(where other work ran beside: calibrate again)"
                    )
            bandwidth = self.memory.bandwidth_gbps.value
            if bandwidth is not None and (entry.gemv_gbps or 0) > MEASUREMENT_SLACK * bandwidth:
                raise ValueError(
                    f"bandwidth_gbps of the outermost memory level ({bandwidth:g}) is below the {entry.gemv_gbps:g} "
                    f"that its own calibration measured; raise it"
                )
        return self

    def runtime(self, name: str) -> Runtime | None:
        """What the profile says of a runtime, where it lists it."""
        return next((each for each in self.runtimes if each.name == name), None)

    def threads(self, runtime: str) -> int:
        """Threads that every measurement in a runtime takes; timings are kept under this number."""
        own = self.runtime(runtime)
        return (own and own.threads) or self.compute.threads or self.compute.cores or 1

    def has_room(self, memory_gib: float) -> bool:
        """Whether that much fits the device; where it is not known how much does, everything."""
        usable = self.memory.usable_gib.value
        return usable is None or memory_gib <= usable

    def check_room(self, memory_gib: float, what: str) -> None:
        """Raises: ProfileError where that much does not fit the device."""
        if not self.has_room(memory_gib):
            raise ProfileError(
                f"{what} needs {memory_gib:.3g} GiB, but memory.usable_gib of device {self.id!r} is "
                f"{self.memory.usable_gib.value:g}; "
                f"take a smaller design or another device"
            )

    def matches_this_machine(self) -> bool:
        """Whether a measurement here would be one of this device."""
        from hardware_profiles.detect import names_of_this_machine

        match = self.identity.match
        if match is None or match.machine != platform.machine():
            return False
        return any(re.search(match.name_regex, name) for name in names_of_this_machine(self.identity.unit))
