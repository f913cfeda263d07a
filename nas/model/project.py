"""Projectors: visual tokens (B, N, D) into the language model's embedding space (B, M, H)."""

from __future__ import annotations

import math
from collections.abc import Callable

from timm.layers import LayerNorm2d  # type: ignore[attr-defined]
from torch import Tensor, nn

from nas.cost_connector import WIDENED
from nas.model.abstract import CAbstractor, DAbstractor
from nas.model.compress import FrameMerging, build_compressor
from nas.model.cross import CrossAttention
from nas.model.grid import to_grid, to_tokens
from nas.model.resample import Perceiver, QFormer, TokenPacker

SELF_POOLING = ("ldp", "ldp-v2", "deco")  # they pool blocks in their own way: tokens reach them uncompressed


def mlp(width: int, hidden: int, depth: int = 2) -> nn.Sequential:
    """Linear, then GELU and Linear (depth - 1) times (LLaVA-1.5, Liu et al. 2023)."""
    layers: list[nn.Module] = [nn.Linear(width, hidden)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(hidden, hidden)]
    return nn.Sequential(*layers)


class ShuffleProjector(nn.Sequential):
    """LayerNorm, Linear, GELU, Linear on pixel-shuffled tokens (InternVL 1.5, Chen et al. 2024)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))


class DeCo(nn.Module):
    """DeCo (Yao et al. 2024, arXiv 2405.20985): adaptive average pooling of patches to a square grid, then the MLP."""

    def __init__(self, width: int, hidden: int, side: int, factor: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(side // math.isqrt(factor))
        self.mlp = mlp(width, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        projected: Tensor = self.mlp(to_tokens(self.pool(to_grid(tokens))))
        return projected


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


class LdpBlock(nn.Module):
    """MobileNetV3's block without expansion: depthwise 3x3, norm, Hardswish, squeeze-excitation, pointwise, norm.

    The residual is there only where the stride is 1.
    """

    def __init__(self, hidden: int, stride: int, *, residual: bool) -> None:
        super().__init__()
        squeezed = squeezed_width(hidden)
        self.residual = residual
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride=stride, padding=1, groups=hidden, bias=False)
        self.norm1, self.norm2 = LayerNorm2d(hidden, eps=1e-5), LayerNorm2d(hidden, eps=1e-5)
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(hidden, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, hidden, 1),
            nn.Hardsigmoid(),
        )  # fmt: skip
        self.pointwise = nn.Conv2d(hidden, hidden, 1, bias=False)
        self.act = nn.Hardswish()

    def forward(self, grid: Tensor) -> Tensor:
        """(B, H, g, g) -> (B, H, g / stride, g / stride)."""
        x: Tensor = self.act(self.norm1(self.depthwise(grid)))
        x = self.norm2(self.pointwise(x * self.squeeze(x)))
        return grid + x if self.residual else x


def squeezed_width(hidden: int) -> int:
    """A quarter, as the nearest multiple of 8 that is not below nine tenths of it (MobileNetV3)."""
    quarter = hidden // 4
    rounded = max(8, (quarter + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * quarter else rounded


class Ldp(nn.Module):
    """MobileVLM's LDP (Chu et al. 2023, arXiv 2312.16886, eq. 3): two pointwise layers, then two depthwise blocks.

    `f0 = PW(GELU(PW(f)))`, `f1 = LN(PW(LN(DW(f0)))) + f0`, `H = LN(PW(LN(DW_stride(f1))))`, with Hardswish and
    squeeze-excitation as in its code. The stride is 2 there, the root of the factor here; kernels stay 3 x 3.
    """

    def __init__(self, width: int, hidden: int, factor: int) -> None:
        super().__init__()
        self.mlp = mlp(width, hidden)
        self.blocks = nn.Sequential(
            LdpBlock(hidden, 1, residual=True), LdpBlock(hidden, math.isqrt(factor), residual=False)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, N, D) -> (B, N / factor, H)."""
        return to_tokens(self.blocks(to_grid(self.mlp(tokens))))


Grid = tuple[int, int]  # rows and columns of the tokens that arrive; one row of sound
# name -> projector of (width D, hidden H, grid, factor)
PROJECTORS: dict[str, Callable[[int, int, Grid, int], nn.Module]] = {
    "linear": lambda width, hidden, grid, factor: nn.Linear(width, hidden),
    "mlp": lambda width, hidden, grid, factor: mlp(width, hidden),
    "mlp-3": lambda width, hidden, grid, factor: mlp(width, hidden, 3),
    "mlp-wide": lambda width, hidden, grid, factor: nn.Sequential(
        nn.Linear(width, WIDENED * hidden), nn.GELU(), nn.Linear(WIDENED * hidden, hidden)
    ),
    "pixel-shuffle": lambda width, hidden, grid, factor: ShuffleProjector(width, hidden),
    "ldp": lambda width, hidden, grid, factor: Ldp(width, hidden, factor),
    "ldp-v2": lambda width, hidden, grid, factor: LdpV2(width, hidden, factor),
    "deco": lambda width, hidden, grid, factor: DeCo(width, hidden, grid[0], factor),
    "c-abstractor": lambda width, hidden, grid, factor: CAbstractor(width, hidden, grid[0], factor),
    "d-abstractor": lambda width, hidden, grid, factor: DAbstractor(width, hidden, grid[0], factor),
    "q-former": lambda width, hidden, grid, factor: QFormer(width, hidden, grid[0] * grid[1] // factor),
    "perceiver": lambda width, hidden, grid, factor: Perceiver(width, hidden, grid[0] * grid[1] // factor),
    "token-packer": lambda width, hidden, grid, factor: TokenPacker(width, hidden, grid[0], factor),
    "cross-attention": lambda width, hidden, grid, factor: CrossAttention(width, hidden),
}


def build_projector(name: str, width: int, hidden: int, factor: int, grid: Grid = (0, 0)) -> nn.Module:
    """`width` is that of the tokens that arrive; those that make fewer tokens themselves need `grid` and `factor`."""
    return PROJECTORS[name](width, hidden, grid, factor)


def build_connector(
    projector: str, compression: str, factor: int, width: int, hidden: int, grid: Grid = (0, 0)
) -> tuple[nn.Module, nn.Module]:
    """(compressor, projector) between a grid of tokens of `width` and a language model of `hidden`."""
    method = "none" if projector in SELF_POOLING else compression
    compressor, arriving = build_compressor(method, factor, width, sound=grid[0] == 1 < grid[1])
    return compressor, build_projector(projector, arriving, hidden, factor, grid)


class Connector(nn.Module):
    """Merging of frames, compression and projector in one, on sets of `count` tokens: (B, S N, D) -> (B, M, H)."""

    def __init__(self, parts: tuple[nn.Module, nn.Module], count: int, frames: int = 1) -> None:
        super().__init__()
        self.count, self.frames = count, FrameMerging(frames)
        self.compressor, self.projector = parts

    def forward(self, tokens: Tensor) -> Tensor:
        return connect(tokens, self.count, self.frames, self.compressor, self.projector)


def connect(tokens: Tensor, count: int, frames: nn.Module, compressor: nn.Module, projector: nn.Module) -> Tensor:
    """(B, S count, D) tokens of S sets -> (B, M, H): frames merged, then each set compressed and projected alone."""
    sets: Tensor = frames(tokens.reshape(len(tokens), -1, count, tokens.shape[-1]))
    projected: Tensor = projector(compressor(sets.flatten(0, 1)))
    return projected.reshape(len(tokens), -1, projected.shape[-1])
