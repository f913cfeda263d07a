"""Closed-form cost of a vision encoder: FLOPs = 2 x multiply-adds, bytes. No torch."""

from __future__ import annotations

from nas.records import DTYPE_BYTES
from search_spaces.catalogue import EncoderSpec


def encoder_params(spec: EncoderSpec, resolution: int, depth: int = 0) -> int:
    """Parameters of one encoder at a resolution, cut after block `depth` (0: whole)."""
    removed = (spec.blocks() - spec.blocks(depth)) * spec.block_params
    return spec.params - removed + spec.position_params(resolution)


def vision_flops(spec: EncoderSpec, resolution: int, depth: int = 0) -> int:
    """FLOPs of one image: a ViT by its blocks, others by their polynomial in the pixels (the stride divides)."""
    pixels = resolution * resolution
    if spec.flops_per_pixel is not None:
        return round(spec.flops_per_image + (spec.flops_per_pixel + spec.flops_per_pixel_squared * pixels) * pixels)
    assert spec.layers is not None and spec.ffn is not None
    patches = spec.tokens(resolution)
    tokens = patches + spec.prefix_tokens
    weights = 4 * spec.width**2 + (3 if spec.gated else 2) * spec.width * spec.ffn
    block = 2 * tokens * weights + 4 * tokens**2 * spec.width
    return 2 * patches * 3 * spec.stride**2 * spec.width + spec.blocks(depth) * block


def vision_activation_bytes(spec: EncoderSpec, resolution: int) -> int:
    """Peak activations of one image, float32."""
    if spec.activation_bytes_per_pixel is not None:
        return round(spec.activation_bytes_per_pixel * resolution * resolution)
    assert spec.ffn is not None
    tokens = spec.tokens(resolution) + spec.prefix_tokens
    return tokens * (2 * spec.width + spec.ffn) * DTYPE_BYTES
