"""Tokens as a grid and back, and the grids that a number of tokens makes."""

from __future__ import annotations

import math

from torch import Tensor


def to_grid(tokens: Tensor) -> Tensor:
    """(B, N, D) -> (B, D, g, g) with g = sqrt(N)."""
    side = math.isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], side, side)


def to_tokens(grid: Tensor) -> Tensor:
    """(B, D, rows, columns) -> (B, rows * columns, D), in raster order."""
    return grid.flatten(2).transpose(1, 2)


def nearly_square(tokens: int) -> tuple[int, int]:
    """Rows and columns of that many tokens, as square as can be: 16 -> (4, 4), 32 -> (4, 8)."""
    rows = next(rows for rows in range(math.isqrt(tokens), 0, -1) if tokens % rows == 0)
    return rows, tokens // rows
