"""Honeybee's locality-preserving abstractors (Cha et al. 2023, arXiv 2312.06742): (B, N, D) -> (B, N / factor, H)."""

from __future__ import annotations

from functools import partial

import torch
from timm.layers import LayerNorm2d  # type: ignore[attr-defined]
from timm.models.regnet import RegStage
from torch import Tensor, nn
from torch.nn import functional as F

from nas.cost_connector import ABSTRACTOR_BLOCKS, DEFORMABLE_LAYERS, DEFORMABLE_POINTS, abstractor_width, heads_of
from nas.model.attend import Attention
from nas.model.grid import nearly_square, to_grid, to_tokens


def _stage(arriving: int, width: int) -> nn.Module:
    """RegNet blocks: 1x1, depthwise 3x3 with squeeze-excitation, 1x1; SiLU and LayerNorm."""
    return RegStage(
        ABSTRACTOR_BLOCKS, arriving, width, stride=1, dilation=1, act_layer=nn.SiLU, norm_layer=partial(LayerNorm2d)
    )


class CAbstractor(nn.Module):
    """ResNet blocks, adaptive average pooling to M tokens, ResNet blocks (section 3.2), then a two-layer MLP.

    `RegStage(3) -> AdaptiveAvgPool2d -> RegStage(3) -> Linear, SiLU, Linear`, learned positions first. The pooled grid
    is the most square one of N / factor tokens; width 1024 as there, or the language model's where that is less.
    """

    def __init__(self, width: int, hidden: int, side: int, factor: int) -> None:
        super().__init__()
        inner = abstractor_width(hidden)
        self.positions = nn.Parameter(torch.randn(1, side * side, width) * 0.02)
        self.before, self.after = _stage(width, inner), _stage(inner, inner)
        self.pool = nn.AdaptiveAvgPool2d(nearly_square(side * side // factor))
        self.readout = nn.Sequential(nn.Linear(inner, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, tokens: Tensor) -> Tensor:
        grid = self.pool(self.before(to_grid(tokens + self.positions)))
        projected: Tensor = self.readout(to_tokens(self.after(grid)))
        return projected


class DeformableAttention(nn.Module):
    """Each query reads a few points around its own, bilinearly (Zhu et al. 2021, arXiv 2010.04159, eq. 2, one level).

    `sum_m W_m sum_k A_mk W'_m x(p + offset_mk)`, offsets in cells of the grid, weights by softmax over the points.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.sampling_offsets = nn.Linear(width, heads * DEFORMABLE_POINTS * 2)
        self.attention_weights = nn.Linear(width, heads * DEFORMABLE_POINTS)
        self.value_proj, self.output_proj = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.sampling_offsets.weight)

    def forward(self, queries: Tensor, points: Tensor, values: Tensor) -> Tensor:
        """queries: (B, M, C); points: (M, 2) as x, y in 0..1; values: (B, N, C) of a square grid -> (B, M, C)."""
        batch, count, _ = queries.shape
        grid = to_grid(self.value_proj(values))
        side = grid.shape[-1]
        grid = grid.reshape(batch * self.heads, -1, side, side)
        offsets = self.sampling_offsets(queries).view(batch, count, self.heads, DEFORMABLE_POINTS, 2) / side
        places = (points[None, :, None, None] + offsets).transpose(1, 2).flatten(0, 1)
        sampled = F.grid_sample(grid, 2 * places - 1, align_corners=False)  # (B heads, C / heads, M, points)
        weights = self.attention_weights(queries).view(batch, count, self.heads, DEFORMABLE_POINTS).softmax(-1)
        mixed = (sampled * weights.transpose(1, 2).flatten(0, 1).unsqueeze(1)).sum(-1)
        read: Tensor = self.output_proj(mixed.reshape(batch, -1, count).transpose(1, 2))
        return read


class DeformableLayer(nn.Module):
    """Self-attention among queries, deformable attention to the grid, feed-forward; norms after each (DETR)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        heads = heads_of(width)
        self.self_attn = Attention(width, heads)
        self.encoder_attn = DeformableAttention(width, heads)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, positions: Tensor, points: Tensor, values: Tensor) -> Tensor:
        """x, positions: (B, M, C)."""
        placed = x + positions
        x = self.norms[0](x + self.self_attn(placed, placed, x))
        x = self.norms[1](x + self.encoder_attn(x + positions, points, values))
        fed: Tensor = self.norms[2](x + self.feed_forward(x))
        return fed


class DAbstractor(nn.Module):
    """Deformable attention from M queries (section 3.2): queries are pooled features, points learned from a grid.

    `Linear(D, C)`, learned positions, queries = adaptive average pooling, six layers, `Linear(C, H)`. Reference points
    start at the centres of the pooled grid's cells.
    """

    def __init__(self, width: int, hidden: int, side: int, factor: int) -> None:
        super().__init__()
        inner, (rows, columns) = abstractor_width(hidden), nearly_square(side * side // factor)
        self.entry, self.exit = nn.Linear(width, inner), nn.Linear(inner, hidden)
        self.positions = nn.Parameter(torch.randn(1, side * side, inner) * 0.02)
        self.query_positions = nn.Parameter(torch.randn(1, rows * columns, inner) * 0.02)
        y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
        self.points = nn.Parameter(torch.stack([x, y], -1).reshape(-1, 2))
        self.pool = nn.AdaptiveAvgPool2d((rows, columns))
        self.layers = nn.ModuleList(DeformableLayer(inner) for _ in range(DEFORMABLE_LAYERS))

    def forward(self, tokens: Tensor) -> Tensor:
        values = self.entry(tokens) + self.positions
        queries = to_tokens(self.pool(to_grid(values)))
        positions, points = self.query_positions.repeat(len(tokens), 1, 1), self.points.clamp(0, 1)
        for layer in self.layers:
            queries = layer(queries, positions, points, values)
        projected: Tensor = self.exit(queries)
        return projected
