"""The catalogue of components: what each encoder and language model is, read from `components/*.yaml`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from search_spaces.reading import check, hint, read_mapping

COMPONENTS = Path(__file__).parent / "components"


class SpaceError(ValueError):
    """A space, candidate or component that breaks a rule; the message names rule, value and next step."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


RecordType = TypeVar("RecordType", bound=_Record)
Triple = Annotated[tuple[float, float, float], BeforeValidator(tuple)]


class EncoderSpec(_Record):
    """A vision encoder: images (B, 3, R, R) -> tokens (B, N, width) on a grid of side R / stride."""

    name: str
    family: Literal["vit", "cnn"]
    timm: str = Field(description="timm architecture name")
    timm_args: dict[str, int | float | str | bool | list[int]] = Field(default_factory=dict)
    feature_index: int | None = Field(default=None, description="cnn: which intermediate feature map is read")
    width: int = Field(gt=0, description="channels of a visual token")
    stride: int = Field(gt=0, description="pixels of each side that one token covers")
    params: int = Field(gt=0, description="parameters that run when tokens are read, without position embeddings")
    prefix_tokens: int = Field(default=0, description="vit: class and register tokens, dropped at the output")
    layers: int | None = None
    ffn: int | None = None
    heads: int | None = None
    flops_per_pixel: float | None = Field(default=None, description="cnn: FLOPs per input pixel (2 x multiply-adds)")
    activation_bytes_per_pixel: float | None = Field(default=None, description="cnn: peak activation bytes, fp32")
    mean: Triple
    std: Triple
    weights: str | None = Field(default=None, description="key of nas.model.pretrained, None = random")
    package: str | None = Field(default=None, description="pip package that carries the weights")
    source: str

    def position_params(self, resolution: int) -> int:
        """Parameters of a ViT's learned position embedding at this resolution."""
        return (self.grid_side(resolution) ** 2 + self.prefix_tokens) * self.width if self.family == "vit" else 0

    def tokens(self, resolution: int, compression_factor: int = 1) -> int:
        """Visual tokens of one image, after compression by the factor."""
        return int(self.grid_side(resolution) ** 2 // compression_factor)

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


@cache
def _read(file: str, record: type[RecordType]) -> dict[str, RecordType]:
    path = COMPONENTS / file
    entries = read_mapping(path, SpaceError)
    return {
        name: check({"name": name, **fields}, record, f"{path.name}: {name}", SpaceError)
        for name, fields in entries.items()
    }


def encoders() -> dict[str, EncoderSpec]:
    """Every vision encoder of the catalogue, by name."""
    return _read("encoders.yaml", EncoderSpec)


def language_models() -> dict[str, LanguageModelSpec]:
    """Every language model of the catalogue, by name."""
    return _read("language_models.yaml", LanguageModelSpec)


def projectors() -> dict[str, OperatorSpec]:
    """Every projector of the catalogue, by name."""
    return _read("projectors.yaml", OperatorSpec)


def compressors() -> dict[str, OperatorSpec]:
    """Every token-compression method of the catalogue, by name."""
    return _read("compressors.yaml", OperatorSpec)


def encoder(name: str) -> EncoderSpec:
    """Raises: SpaceError with the near miss."""
    return _find("encoder", name, encoders())


def language_model(name: str) -> LanguageModelSpec:
    """Raises: SpaceError with the near miss."""
    return _find("language model", name, language_models())


def find_operator(kind: str, name: str, known: dict[str, OperatorSpec]) -> OperatorSpec:
    """One projector or token-compression method. Raises: SpaceError with the near miss."""
    return _find(kind, name, known)


def _find(kind: str, name: str, known: dict[str, RecordType]) -> RecordType:
    if name not in known:
        raise unknown(kind, name, list(known))
    return known[name]


def unknown(kind: str, name: str, known: list[str]) -> SpaceError:
    """The error for an unknown name, with the nearest known one."""
    return SpaceError(f"no {kind} named {name!r}; {hint(name, sorted(known))}")
