"""Candidate: one multimodal LLM of a search space, as a frozen record with a canonical key."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

KEY_LENGTH = 12


class Candidate(BaseModel):
    """One design: which encoder at which resolution, how its tokens reach which language model, and its depth.

    Two candidates that build the same network are equal and share their `key`: a compression factor of 1 is
    always written with `compression="none"`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    encoder: str
    resolution: int = Field(gt=0, description="pixels of each side of the square input")
    projector: str
    compression: str = Field(description="none, or how visual tokens are merged")
    compression_factor: int = Field(ge=1, description="visual tokens before / after compression")
    lm: str
    lm_depth: int = Field(ge=1, description="decoder layers kept")
    lm_layers: str = Field(default="uniform", description="rule that picks which decoder layers stay")

    @model_validator(mode="after")
    def _canonical(self) -> Candidate:
        if (self.compression_factor == 1) != (self.compression == "none"):
            raise ValueError(
                f"compression must be 'none' exactly when compression_factor is 1, "
                f"but got {self.compression!r} with factor {self.compression_factor}"
            )
        return self

    @property
    def key(self) -> str:
        """Short stable name of this design; fields at their default do not enter it, so new axes keep old keys."""
        fields = self.model_dump(exclude_defaults=True)
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, all fields, in declaration order."""
        return self.model_dump()

    def __str__(self) -> str:
        compression = "" if self.compression_factor == 1 else f" {self.compression}/{self.compression_factor}"
        return f"{self.encoder}@{self.resolution} {self.projector}{compression} {self.lm}x{self.lm_depth}"
