"""Projectors: visual tokens (B, M, D) into the language model's embedding space (B, M, H)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from nas.model.compress import build_compressor, to_grid, to_tokens


def mlp(width: int, hidden: int) -> nn.Sequential:
    """Linear, GELU, Linear (LLaVA-1.5, Liu et al. 2023)."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))


class ShuffleProjector(nn.Sequential):
    """LayerNorm, Linear, GELU, Linear on pixel-shuffled tokens (InternVL 1.5, Chen et al. 2024)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))


class LdpV2(nn.Module):
    """MobileVLM V2 (Chu et al. 2024, eq. 2-4): MLP on every token, average pooling, then PEG.

    PEG is `x + DWConv3x3(x)` on the pooled grid. The original pools to 12 x 12; here the factor is an axis.
    """

    def __init__(self, width: int, hidden: int, factor: int) -> None:
        super().__init__()
        self.mlp = mlp(width, hidden)
        self.pool = nn.AvgPool2d(math.isqrt(factor))
        self.peg = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, N, D) -> (B, N / factor, H)."""
        grid = self.pool(to_grid(self.mlp(tokens)))
        return to_tokens(grid + self.peg(grid))


def build_projector(name: str, width: int, hidden: int, factor: int) -> nn.Module:
    """`width` is that of the tokens that arrive; `factor` is used by the projector that pools by itself."""
    if name == "linear":
        return nn.Linear(width, hidden)
    if name == "mlp":
        return mlp(width, hidden)
    if name == "pixel-shuffle":
        return ShuffleProjector(width, hidden)
    if name == "ldp-v2":
        return LdpV2(width, hidden, factor)
    raise KeyError(name)


def build_connector(
    projector: str, compression: str, factor: int, width: int, hidden: int
) -> tuple[nn.Module, nn.Module]:
    """(compressor, projector) between tokens of `width` and a language model of `hidden`.

    LDPv2 pools by itself, after its MLP: the tokens reach it uncompressed.
    """
    method = "none" if projector == "ldp-v2" else compression
    compressor, arriving = build_compressor(method, factor, width)
    return compressor, build_projector(projector, arriving, hidden, factor)
