"""Closed-form cost of a vision encoder: FLOPs = 2 x multiply-adds, bytes. No torch."""

from __future__ import annotations

from typing import Generic, NamedTuple

from nas.cost_language import Count
from nas.records import DTYPE_BYTES
from search_spaces import Candidate
from search_spaces.catalogue import EncoderSpec, encoder


def views(candidate: Candidate) -> int:
    """Most pictures that the encoders see of one image: its tiles and a thumbnail, or the crops of every scale."""
    if candidate.tiling == "s2":
        return sum(scale * scale for scale in range(1, candidate.tiles + 1))
    return 1 if candidate.tiling == "none" else candidate.tiles + 1


def sets(candidate: Candidate) -> int:
    """Most grids of tokens of one image that pass through compression and projector."""
    pictures = 1 if candidate.tiling == "s2" else views(candidate)
    return pictures * (2 if candidate.fusion == "sequence" else 1)


def placeholders(candidate: Candidate, first: EncoderSpec) -> int:
    """Places of one image in the language model's sequence, of its most tiles."""
    return 0 if candidate.crosses else sets(candidate) * first.tokens(candidate.resolution, candidate.entering_factor)


def token_width(candidate: Candidate, first: EncoderSpec, second: EncoderSpec | None) -> int:
    """Channels of the tokens that reach the connector."""
    width = first.width + (0 if second is None else second.width)
    return width * (candidate.tiles if candidate.tiling == "s2" else 1)


def second_encoder(candidate: Candidate) -> EncoderSpec | None:
    """The encoder that sees the same image, where there is one."""
    return None if candidate.second_encoder == "none" else encoder(candidate.second_encoder)


class View(NamedTuple, Generic[Count]):
    """One encoder on one picture; all of it 0 where there is none."""

    params: Count
    flops: Count
    tokens: Count
    width: Count
    activation_bytes: Count


def view(spec: EncoderSpec | None, resolution: int, depth: int = 0) -> View[int]:
    """Decided by the encoder, the resolution and the block after which the encoder is cut (0: whole)."""
    if spec is None:
        return View(0, 0, 0, 0, 0)
    return View(
        params=encoder_params(spec, resolution, depth),
        flops=vision_flops(spec, resolution, depth),
        tokens=spec.tokens(resolution),
        width=spec.width,
        activation_bytes=vision_activation_bytes(spec, resolution),
    )


class Layout(NamedTuple, Generic[Count]):
    """How one image is seen; decided by `tiling`, `tiles`, `fusion` and `temporal_factor`."""

    pictures: Count  # that each encoder sees
    grids: Count  # that pass through compression and projector
    scales: Count  # whose channels stand side by side
    merged: Count  # frames that become one set of grids


def layout(candidate: Candidate) -> Layout[int]:
    scales = candidate.tiles if candidate.tiling == "s2" else 1
    return Layout(views(candidate), sets(candidate), scales, candidate.temporal_factor)


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
