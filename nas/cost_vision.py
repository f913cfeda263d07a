"""Closed-form cost of a vision encoder: FLOPs = 2 x multiply-adds, bytes. No torch."""

from __future__ import annotations

from nas.records import DTYPE_BYTES
from search_spaces.catalogue import EncoderSpec


def vision_flops(spec: EncoderSpec, resolution: int) -> int:
    """A ViT by its blocks; a CNN by its FLOPs per pixel (every stride divides the resolution)."""
    if spec.flops_per_pixel is not None:
        return round(spec.flops_per_pixel * resolution * resolution)
    assert spec.layers is not None and spec.ffn is not None
    patches = spec.tokens(resolution)
    tokens = patches + spec.prefix_tokens
    block = 2 * tokens * (4 * spec.width**2 + 2 * spec.width * spec.ffn) + 4 * tokens**2 * spec.width
    return 2 * patches * 3 * spec.stride**2 * spec.width + spec.layers * block


def vision_activation_bytes(spec: EncoderSpec, resolution: int) -> int:
    if spec.activation_bytes_per_pixel is not None:
        return round(spec.activation_bytes_per_pixel * resolution * resolution)
    assert spec.ffn is not None
    tokens = spec.tokens(resolution) + spec.prefix_tokens
    return tokens * (2 * spec.width + spec.ffn) * DTYPE_BYTES
