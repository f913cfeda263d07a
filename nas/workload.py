"""Workload: what is asked of the model in one request, read from YAML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from nas.errors import ConfigError, UnknownNameError
from search_spaces import SearchSpace
from search_spaces.catalogue import encoder
from search_spaces.reading import check, hint, read_mapping

SHIPPED = Path(__file__).parent / "workloads"


class Workload(BaseModel):
    """One request: images (or clips) and prompt tokens in, new tokens out.

    Of several turns it is the last: every turn brings as much, and what the earlier ones brought is in the KV cache.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    description: str = ""
    images: int = Field(default=1, ge=1)
    frames: int = Field(default=1, ge=1, description="pictures of each image: a clip has several")
    seconds: int = Field(default=0, ge=0, description="of sound in each clip; 0 = pictures are asked about")
    turns: int = Field(default=1, ge=1, description="of a conversation whose context grows")
    prompt_tokens: int = Field(ge=1)
    new_tokens: int = Field(ge=1)
    batch: int = Field(default=1, ge=1)


def of_space(space: SearchSpace, name_or_path: str | None = None) -> Workload:
    """The named workload, else the space's own; checked against its encoders. Raises: UnknownNameError, ConfigError."""
    workload = load(name_or_path or space.workload)
    check_hears(workload, [*map(str, space.axes["encoder"]), space.baseline_candidate.encoder])
    return workload


def of_encoder(name: str, workload: str | None = None) -> Workload:
    """The named workload, else the shortest that this encoder takes. Raises: UnknownNameError, ConfigError."""
    found = load(workload or ("audio-clip" if encoder(name).mels else "vqa-short"))
    check_hears(found, [name])
    return found


def check_hears(workload: Workload, encoders: Sequence[str]) -> None:
    """Sound is asked about by a workload of sound, pictures by the others. Raises: ConfigError."""
    for name in encoders:
        if bool(workload.seconds) != bool(encoder(name).mels):
            has, takes = ("sound", "pictures") if workload.seconds else ("pictures", "sound")
            raise ConfigError(
                f"workload {workload.name} has {has}, but encoder {name} takes {takes}; give --workload "
                f"{'vqa-short' if workload.seconds else 'audio-clip'}, or search encoders of {has}"
            )


def names() -> list[str]:
    """Names of the shipped workloads."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load(name_or_path: str) -> Workload:
    """A shipped workload by name, or the user's own YAML by path.

    Raises: UnknownNameError, ConfigError.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        path = SHIPPED / f"{name_or_path}.yaml"
        if name_or_path not in names():
            raise UnknownNameError(f"no workload named {name_or_path!r}; {hint(name_or_path, names(), 'shipped')}")
    return check(read_mapping(path, ConfigError), Workload, str(path), ConfigError)
