"""The catalogue of components: what each encoder and language model is, read from `components/*.yaml`."""

from __future__ import annotations

import difflib
from functools import lru_cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

COMPONENTS = Path(__file__).parent / "components"


class SpaceError(ValueError):
    """A space, candidate or component that breaks a rule; the message names rule, value and next step."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class EncoderSpec(_Record):
    """A vision encoder: images (B, 3, R, R) -> tokens (B, N, width) on a grid of side R / stride."""

    name: str
    family: Literal["vit", "cnn"]
    timm: str = Field(description="timm architecture name")
    timm_args: dict[str, int | float | str | bool | list[int]] = Field(default_factory=dict)
    feature_index: int | None = Field(default=None, description="cnn: which intermediate feature map is read")
    width: int = Field(gt=0, description="channels of a visual token")
    stride: int = Field(gt=0, description="pixels of each side that one token covers")
    params: int = Field(gt=0, description="parameters that run when tokens are read (unused tail removed)")
    prefix_tokens: int = Field(default=0, description="vit: class and register tokens, dropped at the output")
    layers: int | None = None
    ffn: int | None = None
    heads: int | None = None
    flops_per_pixel: float | None = Field(default=None, description="cnn: FLOPs per input pixel (2 x multiply-adds)")
    activation_bytes_per_pixel: float | None = Field(default=None, description="cnn: peak activation bytes, fp32")
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: str | None = Field(default=None, description="key of nas.model.pretrained, None = random")
    package: str | None = Field(default=None, description="pip package that carries the weights")
    source: str

    def grid_side(self, resolution: int) -> int:
        """Side of the square token grid at a resolution that the stride divides."""
        return resolution // self.stride


class LanguageModelSpec(_Record):
    """A causal language model of the Llama form, before any layer is dropped."""

    name: str
    architecture: Literal["llama"]
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tied_embeddings: bool
    rope_theta: float
    norm_eps: float
    max_positions: int
    image_token_id: int
    tokenizer: str = Field(description="key of nas.model.pretrained tokenizers, e.g. smollm2 or bytes")
    weights: str | None = None
    package: str | None = None
    source: str


class OperatorSpec(_Record):
    """A projector or a token-compression method, with what it may be combined with."""

    name: str
    summary: str
    source: str


@lru_cache(maxsize=None)
def _read(file: str, record: type[_Record]) -> dict[str, _Record]:
    path = COMPONENTS / file
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        return {name: record(name=name, **fields) for name, fields in entries.items()}
    except (TypeError, ValidationError) as error:
        raise SpaceError(f"{path}: {error}") from error


def suggest(kind: str, name: str, known: list[str], see: str) -> SpaceError:
    """The error for an unknown name, with the nearest known one."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
    return SpaceError(f"no {kind} named {name!r}; {hint} (see `{see}`)")
