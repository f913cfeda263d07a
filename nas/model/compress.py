"""Token compression: merge neighbouring visual tokens of a square grid before the projector."""

from __future__ import annotations

import math

from torch import Tensor, nn


def to_grid(tokens: Tensor) -> Tensor:
    """(B, N, D) -> (B, D, g, g) with g = sqrt(N)."""
    side = math.isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], side, side)


def to_tokens(grid: Tensor) -> Tensor:
    """(B, D, g, g) -> (B, g * g, D)."""
    return grid.flatten(2).transpose(1, 2)


class NoCompression(nn.Module):
    """Tokens as they are."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens


class AveragePooling(nn.Module):
    """Mean of each k x k block: (B, N, D) -> (B, N / k^2, D). DeCo (Yao et al. 2024) with an integer ratio."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(math.isqrt(factor))

    def forward(self, tokens: Tensor) -> Tensor:
        return to_tokens(self.pool(to_grid(tokens)))


class PixelShuffle(nn.Module):
    """Space to depth: (B, N, D) -> (B, N / r^2, r^2 D). Idefics3 / SmolVLM connector, InternVL."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.shuffle = nn.PixelUnshuffle(math.isqrt(factor))

    def forward(self, tokens: Tensor) -> Tensor:
        return to_tokens(self.shuffle(to_grid(tokens)))


def build_compressor(name: str, factor: int, width: int) -> tuple[nn.Module, int]:
    """The compression module and the width of the tokens that leave it."""
    if name == "none":
        return NoCompression(), width
    if name == "avgpool":
        return AveragePooling(factor), width
    if name == "pixel-shuffle":
        return PixelShuffle(factor), width * factor
    raise KeyError(name)
