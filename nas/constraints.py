"""Constraints as users write them: `ttft_ms <= 500`, `memory_gib <= 4`, `latency_ms@pi <= 60% of baseline`.

In place of `baseline`, which is the space's, may stand the file of another candidate, or the name of a published design
(`search_spaces/components/references.yaml`). `(soft)` at the end makes it a wish: it steers the sampler and is reported
where it is missed, but rules nothing out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nas.errors import ConfigError
from search_spaces import Candidate, SpaceError, load_candidate
from search_spaces.reading import hint
from search_spaces.references import references

LATENCY_METRICS = ("ttft_ms", "tpot_ms", "latency_ms", "vision_ms")  # vision_ms: of the encoder alone
METRICS = ("quality", *LATENCY_METRICS, "memory_gib", "params")
BASELINE = "baseline"
FORM = re.compile(
    r"^\s*(?P<metric>\w+)(?:@(?P<device>[\w.-]+))?\s*(?P<sign><=|>=)\s*(?P<number>[-+0-9.eE]+)\s*"
    r"""(?:%\s*of\s+(?P<reference>"[^"]+"|[^\s(]+))?\s*(?P<soft>\(soft\))?\s*$"""
)


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound on one metric, absolute or in percent of the baseline's value."""

    text: str
    metric: str
    device: str | None
    upper: bool
    bound: float
    of_baseline: bool
    of_file: str | None = None  # candidate file or published design that a bound in percent speaks of; see `resolve`
    soft: bool = False

    def limit(self, baseline: float | None) -> float:
        """The bound in the metric's unit."""
        if self.of_file is not None:
            raise ConfigError(f"constraint {self.text!r} needs the figures of {self.of_file}, which are not known")
        if not self.of_baseline:
            return self.bound
        if baseline is None:
            raise ConfigError(f"constraint {self.text!r} needs the baseline's {self.metric}, which is not known")
        return self.bound / 100 * baseline

    def violation(self, value: float, baseline: float | None) -> float:
        """How far a value is beyond the bound, in the metric's unit; <= 0 where it holds."""
        excess = value - self.limit(baseline)
        return excess if self.upper else -excess


def parse(text: str) -> Constraint:
    """Raises: ConfigError with rule, value and next step."""
    found = FORM.match(text)
    if not found:
        raise ConfigError(
            f"a constraint must read like 'ttft_ms <= 500' or 'latency_ms <= 60% of baseline', but got {text!r}"
        )
    check_metric(found["metric"], text)
    try:
        bound = float(found["number"])
    except ValueError:
        raise ConfigError(f"the bound must be a number, but got {found['number']!r} in {text!r}") from None
    if not 0 < bound < float("inf"):
        raise ConfigError(f"the bound must be positive and finite, but got {found['number']} in {text!r}")
    if found["device"] and found["metric"] not in LATENCY_METRICS:
        raise ConfigError(f"only {', '.join(LATENCY_METRICS)} take a device, but got {text!r}")
    reference = found["reference"] and found["reference"].strip('"')
    shown = text if reference is None else text.replace(found["reference"], Path(reference).name)
    of_baseline = reference is not None and reference.lower() == BASELINE
    return Constraint(
        text=" ".join(shown.split()),
        metric=found["metric"],
        device=found["device"],
        upper=found["sign"] == "<=",
        bound=bound,
        of_baseline=of_baseline,
        of_file=None if of_baseline else reference,
        soft=found["soft"] is not None,
    )


def resolve(constraint: Constraint, figure_of: Callable[[Candidate], float | None]) -> Constraint:
    """The constraint with an absolute bound where it speaks of a candidate file; any other comes back unchanged.

    `figure_of` gives the constraint's metric for that candidate, None when it is not known: then nothing changes.
    Raises: SpaceError, as `named_design`.
    """
    if constraint.of_file is None:
        return constraint
    figure = figure_of(named_design(constraint))
    return constraint if figure is None else replace(constraint, bound=constraint.bound / 100 * figure, of_file=None)


def named_design(constraint: Constraint) -> Candidate:
    """The candidate that a bound in percent speaks of, from its file or as published.

    Raises: SpaceError with the constraint and the near miss.
    """
    assert constraint.of_file is not None
    path, known = Path(constraint.of_file), [BASELINE, *references()]
    try:
        if path.name == constraint.of_file and path.suffix not in {".yaml", ".yml"} and path.name not in known:
            raise SpaceError(f"no design named {path.name!r}; {hint(path.name, known)}")
        return load_candidate(path)
    except SpaceError as error:
        raise SpaceError(f"constraint {constraint.text!r}: {error}") from error


def for_devices(constraint: Constraint, devices: Sequence[str]) -> list[Constraint]:
    """With several devices, a bound on a bare latency holds on each of them."""
    if constraint.metric not in LATENCY_METRICS or constraint.device is not None or len(devices) < 2:
        return [constraint]
    name = constraint.metric
    return [
        replace(constraint, device=device, text=constraint.text.replace(name, f"{name}@{device}", 1))
        for device in devices
    ]


def check_metric(metric: str, text: str) -> None:
    """Raises: ConfigError with the near miss when no such metric exists."""
    if metric not in METRICS:
        raise ConfigError(f"no metric named {metric!r} in {text!r}; {hint(metric, METRICS)}")


def check_device(device: str, searched: Collection[str], where: str) -> None:
    """Raises: ConfigError with the near miss when a search has no such device."""
    if device not in searched:
        raise ConfigError(f"{where}: '@{device}' is no device of this search; {hint(device, searched, 'searched')}")


def value_of(metrics: Mapping[str, float], constraint: Constraint, first_device: str) -> float:
    """The metric a constraint speaks of, from a flat table; latencies are named `metric@device`."""
    if constraint.metric in LATENCY_METRICS:
        name = f"{constraint.metric}@{constraint.device or first_device}"
        if name not in metrics:
            searched = [key.partition("@")[2] for key in metrics if key.startswith(f"{constraint.metric}@")]
            check_device(constraint.device or first_device, searched, f"constraint {constraint.text!r}")
        return metrics[name]
    return metrics[constraint.metric]
