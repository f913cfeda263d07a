"""Closed-form cost of a vision encoder: FLOPs = 2 x multiply-adds, bytes. No torch."""

from __future__ import annotations

from itertools import pairwise
from typing import Generic, NamedTuple

from nas.cost_language import Count
from nas.records import DTYPE_BYTES
from search_spaces import Candidate
from search_spaces.catalogue import EncoderSpec, encoder

FRAMES_PER_S = 100  # of a log-mel spectrogram, as Whisper takes it


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
    window: Count  # frames of sound that it hears at once; 0 = it sees pictures


def view(spec: EncoderSpec | None, resolution: int, depth: int = 0, merged: int = 1) -> View[int]:
    """Decided by the encoder, the resolution, the block after which the encoder is cut (0: whole), and what its blocks
    merge (`tome-blocks`).
    """
    if spec is None:
        return View(0, 0, 0, 0, 0, 0)
    return View(
        params=encoder_params(spec, resolution, depth),
        flops=vision_flops(spec, resolution, depth, merged),
        tokens=spec.tokens(resolution),
        width=spec.width,
        activation_bytes=vision_activation_bytes(spec, resolution),
        window=window(spec, resolution),
    )


def window(spec: EncoderSpec, resolution: int) -> int:
    """Frames of sound that an encoder hears at once; 0 where it sees pictures."""
    return resolution if spec.mels else 0


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


def vision_flops(spec: EncoderSpec, resolution: int, depth: int = 0, merged: int = 1) -> int:
    """FLOPs of one image: a ViT by its blocks, others by their polynomial in the pixels (the stride divides).

    Blocks that merge (`tome-blocks`, by the factor `merged`) pass on ever fewer tokens.
    """
    pixels = resolution * resolution
    if spec.flops_per_pixel is not None:
        return round(spec.flops_per_image + (spec.flops_per_pixel + spec.flops_per_pixel_squared * pixels) * pixels)
    patches, embedding = spec.block_tokens(resolution) - spec.prefix_tokens, _stem_flops(spec, resolution)
    if merged == 1:
        return embedding + spec.blocks(depth) * _block_flops(spec, patches, patches)
    lengths = merging_lengths(patches, spec.blocks(depth), merged)
    return embedding + sum(_block_flops(spec, before, after) for before, after in pairwise(lengths))


def _stem_flops(spec: EncoderSpec, resolution: int) -> int:
    """Of what makes tokens for the blocks: a matrix on patches, or two convolutions over three frames."""
    if spec.mels:
        return 2 * 3 * spec.width * (resolution * spec.mels + spec.block_tokens(resolution) * spec.width)
    return 2 * spec.tokens(resolution) * 3 * spec.stride**2 * spec.width


def _block_flops(spec: EncoderSpec, patches: int, left: int) -> int:
    """Attention on so many patches, a match of one half of them with the other where some merge, and the feed-forward
    part on those that are left.
    """
    assert spec.ffn is not None
    tokens, width = patches + spec.prefix_tokens, spec.width
    match = 2 * (patches // 2) * -(-patches // 2) * (width // (spec.heads or 1)) * (patches > left)
    feed_forward = 2 * (left + spec.prefix_tokens) * (3 if spec.gated else 2) * width * spec.ffn
    return 8 * tokens * width**2 + 4 * tokens**2 * width + match + feed_forward


def merging_lengths(patches: int, blocks: int, factor: int) -> list[int]:
    """Patches before each of `blocks` that merge, and after the last, patches / factor; as even as can be."""
    removed = patches - patches // factor
    return [patches - removed * block // blocks for block in range(blocks + 1)]


def merged_factor(candidate: Candidate) -> int:
    """By what the encoder's blocks merge tokens; 1 = they do not."""
    return candidate.compression_factor if candidate.compression == "tome-blocks" else 1


def vision_activation_bytes(spec: EncoderSpec, resolution: int) -> int:
    """Peak activations of one image, float32."""
    if spec.activation_bytes_per_pixel is not None:
        return round(spec.activation_bytes_per_pixel * resolution * resolution)
    assert spec.ffn is not None
    return spec.block_tokens(resolution) * (2 * spec.width + spec.ffn) * DTYPE_BYTES
