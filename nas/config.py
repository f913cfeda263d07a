"""SearchConfig: everything a search is asked for; read from RUN.yaml, then flags, then --set."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from nas.constraints import LATENCY_METRICS, METRICS, parse
from nas.errors import ConfigError
from nas.inputs import beside
from search_spaces.reading import check, hint, read_mapping
from search_spaces.reading import parse as parse_yaml

FEWEST_ANCHORS = 5
TRAIN_IMAGES = 1200
MOST_SEED = 2**32 - 1  # that NumPy takes, and so Optuna
SamplerName = Literal["nsga2", "nsga3", "tpe", "gp", "random", "funnel"]
STORAGE_VARIABLE = "NAS_STORAGE"  # a storage URL with its password, which is never written down
_LOGIN = re.compile(r"(://[^:/?#@]*):[^@]*@(?:[^/?]*@)?")  # ://user:PASSWORD@, also where the password holds an @
_PARAMETER = re.compile(r"([?&]\w*password=)[^&]*", re.IGNORECASE)


class SearchConfig(BaseModel):
    """A resolved search. Defaults are those of the main job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: str = "pocket"
    overrides: dict[str, list[str | int]] = Field(default_factory=dict, description="axes replaced by --set")
    devices: list[str] = Field(default_factory=lambda: ["local"], min_length=1)
    runtime: str = "torch-eager"
    dtype: str = "fp32"
    workload: str | None = Field(default=None, description="None = the space's own")
    measuring_s: float | None = Field(
        default=600, gt=0, description="of blocks on a device, at most about; others are fitted to them; None = all"
    )
    objectives: list[str] = Field(default_factory=lambda: ["quality", "latency_ms"], min_length=1)
    constraints: list[str] | None = Field(default=None, description="None = the space's own")
    trials: int = Field(default=60, ge=1)
    timeout_s: float | None = Field(default=None, gt=0)
    workers: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0, le=MOST_SEED)
    sampler: SamplerName = "nsga2"
    storage: str | None = None
    study: str | None = None
    out: str = "runs"
    anchors: int = Field(default=0, ge=0, description="trained first to fit the score on; 0 = the closed-form prior")
    finalists: int = Field(default=3, ge=0)
    rungs: int = Field(
        default=1, ge=1, le=6, description="of training: each halves the candidates and doubles the steps"
    )
    train_steps: int = Field(default=240, ge=1)
    train_images: int = Field(default=TRAIN_IMAGES, ge=10, description="or clips of sound; at most")
    data: str | None = Field(
        default=None, description="folder of LLaVA JSON to train on; None = easy-vqa for designs that see"
    )
    start_from: str | None = Field(default=None, description="an earlier run whose scores and trainings are taken over")
    candidates: list[str] = Field(default_factory=list, description="files of candidates to begin with")
    proxies: list[str] | None = None
    trial_timeout_s: float = Field(default=300, gt=0)
    trial_memory_gib: float | None = Field(default=None, gt=0, description="None = its share of what is free")
    apart: bool = Field(
        default=False, description="one worker: trials in a process of their own, which may hang or die"
    )
    cluster: str | None = Field(default=None, description="a Ray cluster that runs already; HOST:PORT")

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, names: list[str]) -> list[str]:
        for name in names:
            metric, sign, device = name.partition("@")
            if metric not in METRICS:
                raise ValueError(f"objectives must be metrics, but got {name!r}; {hint(metric, METRICS)}")
            if sign and not (device and metric in LATENCY_METRICS):
                raise ValueError(
                    f"objectives of one device must read METRIC@DEVICE and be of {', '.join(LATENCY_METRICS)}, "
                    f"but got {name!r}"
                )
        return names

    @field_validator("objectives", "devices")
    @classmethod
    def _each_once(cls, names: list[str]) -> list[str]:
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is given {names.count(name)} times; give it once")
        return names

    @field_validator("anchors")
    @classmethod
    def _enough_anchors(cls, count: int) -> int:
        if 0 < count < FEWEST_ANCHORS:
            raise ValueError(f"anchors must be 0, or {FEWEST_ANCHORS} or more (about 12 do well), but got {count}")
        return count

    @field_validator("constraints")
    @classmethod
    def _parsable(cls, texts: list[str] | None) -> list[str] | None:
        for text in texts or []:
            parse(text)
        return texts and [" ".join(text.split()) for text in texts]

    @model_validator(mode="after")
    def _funnel_weighs_quality_against_costs(self) -> SearchConfig:
        if self.sampler == "funnel" and ("quality" not in self.objectives or len(self.objectives) < 2):
            raise ValueError(
                f"sampler funnel needs quality and a cost (latency_ms, ...) as objectives, but got "
                f"{', '.join(self.objectives)}; add the other one, or take another sampler"
            )
        return self


def load(
    file: Path | None, flags: Mapping[str, Any], settings: list[str], *, before: Path | None = None
) -> SearchConfig:
    """What a run was `before` < RUN.yaml < flags that were given < --set. Raises: ConfigError with the near miss."""
    fields: dict[str, Any] = {}
    for one in filter(None, (before, file)):
        fields |= beside(read_mapping(one, ConfigError), one.parent)
    fields |= {name: value for name, value in flags.items() if value not in (None, [])}
    for setting in settings:
        name, sign, text = setting.partition("=")
        if not sign:
            raise ConfigError(f"--set must read key=value, but got {setting!r}")
        value = parse_yaml(text, f"the value of --set {name}", ConfigError)
        if name.startswith("space.axes."):
            axes = dict(fields.get("overrides", {}))
            axes[name.removeprefix("space.axes.")] = value if isinstance(value, list) else [value]
            fields["overrides"] = axes
        else:
            fields[name] = value
    found = check(fields, SearchConfig, str(file) if file else "search", ConfigError)
    return found.model_copy(update={"storage": _with_password(found.storage)})


def dump(config: SearchConfig) -> str:
    """The YAML that `load` reads again; without the password of its storage."""
    fields = config.model_dump(mode="json")
    if config.storage:
        fields["storage"] = without_password(config.storage)
    return yaml.safe_dump(fields, sort_keys=False)


def shown_storage(url: str) -> str:
    """A storage URL with its password hidden."""
    return _PARAMETER.sub(r"\1***", _LOGIN.sub(r"\1:***@", url))


def without_password(url: str) -> str:
    """A storage URL as it is written down; whoever goes on gives its password in NAS_STORAGE or PGPASSWORD."""
    address, _, query = _LOGIN.sub(r"\1@", url).partition("?")
    kept = [field for field in query.split("&") if field and not _PARAMETER.match(f"&{field}")]
    return f"{address}?{'&'.join(kept)}" if kept else address


def _with_password(url: str | None) -> str | None:
    """NAS_STORAGE, where that is the same database."""
    given = os.environ.get(STORAGE_VARIABLE)
    return given if url and given and without_password(given) == without_password(url) else url


def duration(text: str | None) -> float | None:
    """`90`, `90s`, `30m` or `2h` in seconds. Raises: ConfigError."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not found or float(found[1]) == 0:
        raise ConfigError(f"--timeout must read like 90s, 30m or 2h, but got {text!r}")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]
