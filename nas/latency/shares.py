"""How much of its datasheet a device reaches: a hierarchical model of log(time / roofline), and its honest width.

    log(t / t_roofline) = x . w + device + rest,    t_roofline = max(FLOPs / peak, bytes / bandwidth)

`w` are effects of the phase, of the class of device within it, of the runtime, and of what is physical about the work;
they are drawn to zero and each has its own uncertainty, so that a class seen on few devices leans on the others.
`device` differs from device to device, `rest` from run to run: a device that was never seen gets both variances, and a
wider t distribution the fewer of its class were seen (Gelman et al., "Bayesian Data Analysis", ch. 15). Coefficients:
`shares.json`, fitted by `nas.latency.share_fit` and checked on devices left out by bench/latency/estimates. No torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from nas.cost_rows import Matrix

SHARES_FILE = Path(__file__).with_name("shares.json")
PhaseName = Literal["vision", "prefill", "decode"]
Kind = Literal[
    "gpu", "server_gpu", "integrated_gpu", "apple_gpu", "edge_gpu", "npu", "apple_npu", "cpu", "phone_cpu", "apple_cpu"
]
# portable: Vulkan and OpenCL, which reach no matrix units; "" = not known
RuntimeFamily = Literal["eager", "compiled", "llama.cpp", "portable", ""]
Family = Literal["phase", "class", "runtime", "slope"]
PHASES: tuple[PhaseName, ...] = get_args(PhaseName)
SMALL_MS = 1.0  # of roofline time: below it, starting the kernels shows
LEAST_MS = 0.25  # shorter phases than this were hardly published
TYPICAL_TOKENS = 512.0
NORMAL_80 = 1.2816  # standard deviations to either side that hold 80 % of a normal distribution
LEAST_FREEDOM = 2  # of the t distribution for a class that no device was seen of; each device seen adds one


@dataclass(frozen=True, slots=True)
class Datasheet:
    """Figures of one compute unit."""

    kind: Kind
    peak_flops_per_s: float  # dense, of the dtype that the products run in
    bandwidth_bytes_per_s: float

    @property
    def unit(self) -> str:
        return self.kind.rpartition("_")[2]


@dataclass(frozen=True, slots=True)
class PhaseWork:
    """What one phase of a request computes and moves; FLOPs = 2 x multiply-adds."""

    phase: PhaseName
    flops: float
    weight_bytes: float
    activation_bytes: float
    tokens: float  # rows of the matrix products' left side, over the whole batch
    weight_bits: float
    runtime: RuntimeFamily = ""
    convolves: bool = False
    threads_share: float = 1.0  # of a CPU's cores


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard deviations of log time for one phase on one class of device."""

    device: float  # from device to device
    rest: float  # from run to run on one device
    devices: int = 0  # that the two were learned from


@dataclass(frozen=True, slots=True)
class Estimate:
    """Milliseconds: the middle, and the deviation of its logarithm of which 1.28 to either side hold 80 %."""

    middle_ms: float
    log_sd: float

    @property
    def low_ms(self) -> float:
        return self.middle_ms * math.exp(-NORMAL_80 * self.log_sd)

    @property
    def high_ms(self) -> float:
        return self.middle_ms * math.exp(NORMAL_80 * self.log_sd)


def roofline_ms(work: PhaseWork, sheet: Datasheet) -> float:
    """The least time that the datasheet allows; a CPU's peak shrinks with the threads that run."""
    return 1e3 * max(_terms_s(work, sheet))


def is_memory_bound(work: PhaseWork, sheet: Datasheet) -> bool:
    """Whether moving takes longer than computing."""
    compute_s, memory_s = _terms_s(work, sheet)
    return memory_s > compute_s


def _terms_s(work: PhaseWork, sheet: Datasheet) -> tuple[float, float]:
    moved = work.weight_bytes + work.activation_bytes
    return work.flops / (work.threads_share * sheet.peak_flops_per_s), moved / sheet.bandwidth_bytes_per_s


def effects(work: PhaseWork, sheet: Datasheet) -> dict[str, float]:
    """The row x of one phase by name; `family` tells which prior an effect has.

    Slopes: bits (weights below 16 bits are unpacked), overlap (computing and moving of equal length do not hide each
    other fully), small (kernels take time to start however little they do), tokens (short prefills do not fill the
    matrix units), convolves (depthwise convolutions do not either).
    """
    phase, unit = work.phase, sheet.unit
    compute_s, memory_s = _terms_s(work, sheet)
    slopes = {
        "bits": math.log2(16 / min(16.0, work.weight_bits)),
        "overlap": min(compute_s, memory_s) / max(compute_s, memory_s),
        "small": math.log1p(SMALL_MS / max(LEAST_MS, roofline_ms(work, sheet))),
    }
    if phase == "prefill":
        slopes["tokens"] = math.log2(min(work.tokens, 2 * TYPICAL_TOKENS) / TYPICAL_TOKENS) / 2
    if phase == "vision":
        slopes["convolves"] = float(work.convolves)
    found = {f"{phase}": 1.0, f"{phase}/class/{unit}": 1.0, f"{phase}/class/{sheet.kind}": 1.0}
    if work.runtime:
        found[f"{phase}/runtime/{work.runtime}/{unit}"] = 1.0
    for name, value in slopes.items():
        found[f"{phase}/{name}"] = value
        if name != "overlap":
            found[f"{phase}/{name}/{unit}"] = value
    return found


def family(effect: str) -> Family:
    """Which of the priors an effect is drawn from."""
    parts = effect.split("/")
    if len(parts) == 1 or "portable" in parts:
        return "phase"
    return "class" if parts[1] == "class" else "runtime" if parts[1] == "runtime" else "slope"


@dataclass(frozen=True)
class Shares:
    """The fitted model; `width` makes its intervals hold on devices that were left out."""

    names: tuple[str, ...]
    weights: Matrix  # (effects)
    covariance: Matrix  # (effects, effects)
    prior_sd: Mapping[Family, float]
    shared_sd: float  # of a device in all its phases alike
    spreads: Mapping[str, Spread]  # by phase, and by phase/class where there were rows
    width: float
    kind_widths: Mapping[Kind, float]  # beside it, of the classes of device that were seen
    devices: tuple[str, ...]  # seen in the fit
    source: str

    def estimate(self, works: Sequence[PhaseWork], sheet: Datasheet) -> tuple[list[Estimate], Matrix]:
        """Phases of one device that was not seen, and the covariance of their log times (phases, phases)."""
        rows = [effects(work, sheet) for work in works]
        place = {name: index for index, name in enumerate(self.names)}
        x = np.zeros((len(rows), len(place)))
        for line, row in enumerate(rows):
            for name in row.keys() & place.keys():
                x[line, place[name]] = row[name]
        covariance = x @ self.covariance @ x.T + self.shared_sd**2
        spreads = [self.spreads.get(f"{work.phase}/{sheet.kind}", self._unseen(work.phase)) for work in works]
        for i, first in enumerate(rows):
            covariance[i, i] += spreads[i].rest ** 2
            for j, second in enumerate(rows):
                covariance[i, j] += self._never_seen(first, second)
                if works[i].phase == works[j].phase:
                    covariance[i, j] += spreads[i].device ** 2
        own = self.width * self.kind_widths.get(sheet.kind, 1.0)
        widths = own * np.array([_t_width(LEAST_FREEDOM + spread.devices) for spread in spreads])
        covariance *= np.outer(widths, widths)
        logs, deviations = (x @ self.weights).tolist(), np.sqrt(np.diag(covariance)).tolist()
        found = [
            Estimate(roofline_ms(work, sheet) * math.exp(log), deviation)
            for work, log, deviation in zip(works, logs, deviations, strict=True)
        ]
        return found, covariance

    def middles_ms(
        self, phase: PhaseName, runtime: RuntimeFamily, weight_bits: float, sheet: Datasheet, compute_s: Matrix,
        memory_s: Matrix, tokens: Matrix | float, convolves: Matrix | float,
    ) -> Matrix:  # fmt: skip
        """The middles of one phase of many designs, as `estimate` has them one by one."""
        bound_ms = 1e3 * np.maximum(compute_s, memory_s)
        plain = PhaseWork(phase, sheet.peak_flops_per_s, 0.0, 0.0, 2 * TYPICAL_TOKENS, weight_bits, runtime, True)
        slopes: dict[str, Matrix | float] = {
            "overlap": 1e3 * np.minimum(compute_s, memory_s) / bound_ms,
            "small": np.log1p(SMALL_MS / np.maximum(LEAST_MS, bound_ms)),
            "tokens": np.log2(np.minimum(tokens, 2 * TYPICAL_TOKENS) / TYPICAL_TOKENS) / 2,
            "convolves": convolves,
        }
        log: Matrix = np.zeros(1)
        for name, value in effects(plain, sheet).items():
            slope = name.split("/")[1] if "/" in name else ""
            log = log + self._weight_of.get(name, 0.0) * slopes.get(slope, value)
        found: Matrix = bound_ms * np.exp(log)
        return found

    @cached_property
    def _weight_of(self) -> dict[str, float]:
        return dict(zip(self.names, self.weights.tolist(), strict=True))

    def _unseen(self, phase: PhaseName) -> Spread:
        return Spread(self.spreads[phase].device, self.spreads[phase].rest)

    def _never_seen(self, first: Mapping[str, float], second: Mapping[str, float]) -> float:
        """Covariance by effects that the fit has no row of: all that is known of them is their prior."""
        shared = (first.keys() & second.keys()) - set(self.names)
        return sum(first[name] * second[name] * self.prior_sd[family(name)] ** 2 for name in shared)

    def to_json(self) -> str:
        """Plain numbers; the covariance by its lower triangle."""
        lower = [[float(f"{value:.4g}") for value in row[: i + 1]] for i, row in enumerate(self.covariance.tolist())]
        fields = {
            "source": self.source,
            "devices": list(self.devices),
            "width": round(self.width, 4),
            "kind_widths": {name: round(value, 4) for name, value in self.kind_widths.items()},
            "prior_sd": {name: round(value, 4) for name, value in self.prior_sd.items()},
            "shared_sd": round(self.shared_sd, 4),
            "spreads": {
                name: {"device": round(each.device, 4), "rest": round(each.rest, 4), "devices": each.devices}
                for name, each in self.spreads.items()
            },
            "weights": {name: round(float(w), 5) for name, w in zip(self.names, self.weights, strict=True)},
        }
        head = json.dumps(fields, indent=1)
        return head[:-2] + ',\n "covariance": [\n' + ",\n".join(json.dumps(row) for row in lower) + "\n]}\n"

    @classmethod
    def from_json(cls, text: str) -> Shares:
        """Raises: ValueError or KeyError where the text is no such model."""
        fields = json.loads(text)
        size = len(fields["weights"])
        covariance = np.zeros((size, size))
        for i, row in enumerate(fields["covariance"]):
            covariance[i, : i + 1] = covariance[: i + 1, i] = row
        return cls(
            tuple(fields["weights"]), np.array(list(fields["weights"].values())), covariance, fields["prior_sd"],
            fields["shared_sd"], {name: Spread(**each) for name, each in fields["spreads"].items()},
            fields["width"], fields["kind_widths"], tuple(fields["devices"]), fields["source"],
        )  # fmt: skip


def _t_width(freedom: float) -> float:
    """How much wider than a normal's the 80 % interval of a t distribution is."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.9)) / NORMAL_80


@cache
def shipped() -> Shares:
    """The coefficients that come with the program."""
    return Shares.from_json(SHARES_FILE.read_text(encoding="utf-8"))
