"""Candidate: one multimodal LLM of a search space, as a frozen record with a canonical key."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

KEY_LENGTH = 12
# Fields that are off together: (field, its value when off, the other field, its value when off).
PAIRS = (
    ("compression", "none", "compression_factor", 1),
    ("second_encoder", "none", "fusion", "none"),
    ("tiling", "none", "tiles", 1),
)


class Candidate(BaseModel):
    """One design: which encoder at which resolution, how its tokens reach which language model, and its depth.

    Two candidates that build the same network are equal and share their `key`: what is switched off is written in one
    way only (`PAIRS`), a compression factor of 1 with `compression="none"` for example.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    encoder: str
    resolution: int = Field(gt=0, description="pixels of each side of the square input; frames of sound in a window")
    projector: str
    compression: str = Field(description="none, or how visual tokens are merged")
    compression_factor: int = Field(ge=1, description="visual tokens before / after compression")
    lm: str
    lm_depth: int = Field(ge=1, description="decoder layers kept")
    lm_layers: str = Field(default="uniform", description="rule that picks which decoder layers stay")
    encoder_depth: int = Field(default=0, ge=0, description="ViT blocks that run, the last is read; 0 = all of them")
    second_encoder: str = Field(default="none", description="another encoder that sees the same image")
    fusion: Literal["none", "channel", "sequence"] = Field(default="none", description="how two encoders' tokens join")
    tiling: Literal["none", "grid", "any-resolution", "s2"] = Field(default="none", description="one image as several")
    tiles: int = Field(default=1, ge=1, description="most tiles of an image, a thumbnail beside them; s2: scales")
    temporal_factor: int = Field(default=1, ge=1, description="video frames merged into one set of tokens")
    prune_layer: int = Field(default=0, ge=0, description="fastv: decoder layers that see every visual token")
    lm_ffn: int = Field(default=0, ge=0, description="width of the feed-forward layers; 0 = as published")
    lm_heads: int = Field(default=0, ge=0, description="query heads, kv heads cut in proportion; 0 = as published")
    lm_experts: int = Field(default=0, ge=0, description="sparse-upcycled experts, two of them active; 0 = dense")
    lm_weights: Literal["native", "int8", "int4"] = Field(default="native", description="weight-only quantisation")
    kv_cache: Literal["native", "bf16", "int8"] = Field(default="native", description="precision of keys and values")
    attention: Literal["sdpa", "eager"] = Field(default="sdpa", description="transformers attention implementation")

    @model_validator(mode="after")
    def _canonical(self) -> Candidate:
        for name, off, other, other_off in PAIRS:
            value, other_value = getattr(self, name), getattr(self, other)
            if (value == off) != (other_value == other_off):
                raise ValueError(
                    f"{name} must be {off!r} exactly when {other} is {other_off!r}, "
                    f"but got {value!r} with {other}={other_value!r}"
                )
        if (self.prune_layer > 0) != (self.compression == "fastv"):
            raise ValueError(
                f"prune_layer must be 0 exactly when compression is not 'fastv', "
                f"but got {self.prune_layer} with {self.compression!r}"
            )
        if self.lm_experts == 1:
            raise ValueError("lm_experts must be 0 (dense) or 2 and more, but got 1")
        return self

    @property
    def key(self) -> str:
        """Short stable name of this design; fields at their default do not enter it, so new axes keep old keys."""
        fields = self.model_dump(exclude_defaults=True)
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]

    @property
    def entering_factor(self) -> int:
        """By what visual tokens are fewer when they enter the language model; fastv drops them inside it."""
        return 1 if self.compression == "fastv" else self.compression_factor

    @property
    def crosses(self) -> bool:
        """Whether the decoder reads visual tokens by cross-attention, so that they take no place in its sequence."""
        return self.projector == "cross-attention"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, all fields, in declaration order."""
        return self.model_dump()

    def __str__(self) -> str:
        compression = "" if self.compression_factor == 1 else f" {self.compression}/{self.compression_factor}"
        seven = f"{self.encoder}@{self.resolution} {self.projector}{compression} {self.lm}x{self.lm_depth}"
        others = self.model_dump(exclude_defaults=True).items()
        return " ".join([seven, *(f"{name}={value}" for name, value in others if name in OPTIONAL)])


# Fields that a space need not name.
OPTIONAL = tuple(name for name, field in Candidate.model_fields.items() if not field.is_required())
