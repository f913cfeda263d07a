"""The catalogue of components: what each encoder and language model is, read from `components/*.yaml`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from search_spaces.reading import check, hint, read_mapping

COMPONENTS = Path(__file__).parent / "components"
# Where encoders outside of the catalogue come from: `nas` puts in what describes `timm:NAME` and `hf:FOLDER`.
OUTSIDE: dict[str, Callable[[str], EncoderSpec]] = {}


class SpaceError(ValueError):
    """A space, candidate or component that breaks a rule; the message names rule, value and next step."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


RecordType = TypeVar("RecordType", bound=_Record)
LayerKind = Literal["full_attention", "sliding_attention", "conv", "mamba", "mamba2", "hybrid"]
# Forms whose feed-forward part transformers also has as experts: their own model_type, and its key of the count.
UPCYCLED = {"llama": ("mixtral", "num_local_experts"), "qwen3": ("qwen3_moe", "num_experts")}
Triple = Annotated[tuple[float, float, float], BeforeValidator(tuple)]


class EncoderSpec(_Record):
    """An encoder of pictures: (B, 3, R, R) -> tokens (B, N, width) on a grid of side R / stride.

    `vit`: equal blocks of attention and feed-forward. `cnn`: all others; their FLOPs are a polynomial in the pixels,
    of which the square is the attention of hybrids. With `mels`, of sound (Whisper's form): R frames of a log-mel
    spectrogram (B, mels, R) -> R / stride tokens in one row; two convolutions halve the frames in front of the blocks.
    """

    name: str
    family: Literal["vit", "cnn"]
    timm: str = Field(default="", description="timm architecture name")
    timm_args: dict[str, int | float | str | bool | list[int]] = Field(default_factory=dict)
    transformers: dict[str, Any] = Field(default_factory=dict, description="or a transformers config, with model_type")
    feature_index: int | None = Field(default=None, description="cnn: which feature map is read, None = the final one")
    width: int = Field(gt=0, description="channels of a visual token")
    stride: int = Field(gt=0, description="pixels of each side that one token covers, or frames")
    mels: int = Field(default=0, ge=0, description="bands of the spectrogram of an encoder of sound; 0 = of pictures")
    params: int = Field(gt=0, description="parameters of what runs when tokens are read, without positions of patches")
    prefix_tokens: int = Field(default=0, description="vit: class and register tokens, dropped at the output")
    class_token: bool = Field(default=True, description="vit: the first prefix token is one that attends for the image")
    learned_positions: bool = Field(default=True, description="vit: one learned embedding a patch of the grid")
    layers: int | None = None
    ffn: int | None = None
    plain_blocks: bool = Field(
        default=False, description="vit: timm's plain blocks, in which tokens may merge: attention needs no positions"
    )
    gated: bool = Field(default=False, description="vit: the feed-forward part has three matrices (GLU), not two")
    heads: int | None = None
    block_params: int = Field(default=0, description="vit: parameters of one block")
    flops_per_image: float = Field(default=0.0, description="cnn: FLOPs free of the image's size (squeeze-excitation)")
    flops_per_pixel: float | None = Field(default=None, description="cnn: FLOPs per input pixel (2 x multiply-adds)")
    flops_per_pixel_squared: float = Field(default=0.0, description="cnn: FLOPs per squared pixels (attention)")
    activation_bytes_per_pixel: float | None = Field(default=None, description="cnn: peak activation bytes, fp32")
    mean: Triple = (0.5, 0.5, 0.5)
    std: Triple = (0.5, 0.5, 0.5)
    weights: str | None = Field(default=None, description="key of nas.model.pretrained, or a folder; None = random")
    package: str | None = Field(default=None, description="pip package that carries the weights")
    hub: str | None = Field(default=None, description="repository of weights, asked only when asked for")
    source: str

    @model_validator(mode="after")
    def _has_one_library(self) -> EncoderSpec:
        if bool(self.timm) == bool(self.transformers):
            raise ValueError(
                "an encoder is either of timm or of transformers: give one of the keys 'timm', 'transformers'"
            )
        return self

    def position_params(self, resolution: int) -> int:
        """Parameters of the position embeddings of a ViT's patches, or of sound, at this resolution."""
        if self.family != "vit" or not self.learned_positions:
            return 0
        return (self.block_tokens(resolution) - self.prefix_tokens) * self.width

    def block_tokens(self, resolution: int) -> int:
        """Tokens that pass through the blocks of a ViT: prefix ones too, and those of sound before any pooling."""
        return resolution // 2 if self.mels else self.tokens(resolution) + self.prefix_tokens

    def blocks(self, depth: int = 0) -> int:
        """Blocks of a ViT that run; a depth of 0 means all."""
        return depth or self.layers or 0

    def tokens(self, resolution: int, compression_factor: int = 1) -> int:
        """Visual tokens of one image, after compression by the factor."""
        rows, columns = self.grid(resolution)
        return rows * columns // compression_factor

    def grid(self, resolution: int) -> tuple[int, int]:
        """Rows and columns of tokens at a resolution that the stride divides: a square, or one row of sound."""
        side = resolution // self.stride
        return (1, side) if self.mels else (side, side)

    def grid_side(self, resolution: int) -> int:
        """Side of the square token grid."""
        return self.grid(resolution)[0]


class LanguageModelSpec(_Record):
    """A causal language model that transformers has, before any layer is dropped. A size of 0: the form has none."""

    name: str
    architecture: str = Field(description="transformers' model_type")
    hidden: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    ffn: int = Field(default=0, description="width of the feed-forward part; of one expert where there are experts")
    vocab: int = Field(gt=0)
    tied_embeddings: bool
    layer_pattern: tuple[LayerKind, ...] = Field(default=("full_attention",), description="repeated down the layers")
    config: dict[str, Any] = Field(default_factory=dict, description="the other fields of transformers' config")
    published_params: int | None = Field(default=None, description="as its publisher counts them")
    image_token_id: int = Field(default=4, ge=0)
    tokenizer: str = Field(default="bytes", description="key of nas.model.pretrained tokenizers, or a folder")
    hub: str | None = Field(default=None, description="repository on the Hugging Face hub, asked only on request")
    weights: str | None = Field(default=None, description="key of nas.model.pretrained, None = random")
    layer_orders: dict[str, list[int]] = Field(
        default_factory=dict, description="rule of lm_layers -> layers in the order in which they are dropped"
    )
    package: str | None = None
    source: str

    @field_validator("layer_pattern", mode="before")
    @classmethod
    def _as_tuple(cls, pattern: Any) -> Any:
        return tuple(pattern) if isinstance(pattern, list) else pattern

    @property
    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """What each decoder layer mixes tokens by."""
        return tuple(self.layer_pattern[index % len(self.layer_pattern)] for index in range(self.layers))

    def resized(self, ffn: int, heads: int, experts: int) -> LanguageModelSpec:
        """With another FFN width, fewer query heads (keys and values in proportion), and copies of the FFN as experts,
        two of them active (sparse upcycling, Komatsuzaki et al. 2023). 0 = as published.

        Raises: SpaceError where the form has no such part.
        """
        changes: dict[str, Any] = {}
        if ffn:
            if not self.ffn or ffn % 8:
                raise SpaceError(f"lm_ffn must be a multiple of 8 and {self.name} have an FFN, but got {ffn}; leave 0")
            changes["ffn"] = ffn
        if heads:
            if not self.heads or heads > self.heads or heads * self.kv_heads % self.heads:
                allowed = [n for n in range(1, self.heads + 1) if n * self.kv_heads % self.heads == 0]
                raise SpaceError(
                    f"lm_heads of {self.name} must be one of {', '.join(map(str, allowed)) or 'none'}, but got {heads}"
                )
            changes |= {"heads": heads, "kv_heads": heads * self.kv_heads // self.heads}
        if experts:
            if self.architecture not in UPCYCLED or experts < 2:
                raise SpaceError(
                    f"lm_experts must be 0, or 2 and more for models of the form of {' or '.join(UPCYCLED)}, "
                    f"but got {experts} for {self.name} ({self.architecture})"
                )
            sparse, key = UPCYCLED[self.architecture]
            changes |= {"architecture": sparse, "config": self.config | {key: experts, "num_experts_per_tok": 2}}
        return self.model_copy(update=changes) if changes else self


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
    """An entry of the catalogue, or, by `timm:NAME`, `hf:FOLDER` or `hf:MODEL_TYPE`, any of those libraries.

    Raises: SpaceError with the near miss.
    """
    source, separator, _ = name.partition(":")
    if separator and source in OUTSIDE:
        return OUTSIDE[source](name)
    return _find("encoder", name, encoders(), "; others are named timm:NAME, hf:FOLDER or hf:MODEL_TYPE")


def language_model(name: str) -> LanguageModelSpec:
    """An entry of the catalogue, or the config of a local folder. Raises: SpaceError with the near miss."""
    if "/" in name or "\\" in name:
        return read_folder(Path(name))
    return _find("language model", name, language_models(), "; others are named by their folder, as ./NAME")


@cache
def read_folder(folder: Path) -> LanguageModelSpec:
    """Any causal language model by the config.json of its folder. Raises: SpaceError."""
    from search_spaces.foreign import language_model_fields

    return check(language_model_fields(folder), LanguageModelSpec, str(folder), SpaceError)


def find_operator(kind: str, name: str, known: dict[str, OperatorSpec]) -> OperatorSpec:
    """One projector or token-compression method. Raises: SpaceError with the near miss."""
    return _find(kind, name, known)


def _find(kind: str, name: str, known: dict[str, RecordType], others: str = "") -> RecordType:
    if name not in known:
        raise SpaceError(f"{unknown(kind, name, list(known))}{others}")
    return known[name]


def unknown(kind: str, name: str, known: list[str]) -> SpaceError:
    """The error for an unknown name, with the nearest known one."""
    return SpaceError(f"no {kind} named {name!r}; {hint(name, sorted(known))}")
