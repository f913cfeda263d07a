"""A bill of matrices that run on rows: parameters, FLOPs (2 x multiply-adds) and kernels; of one part, or of many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

import numpy as np

from nas.cost_language import Count


@dataclass(slots=True)
class Bill(Generic[Count]):
    """What a connector costs, or many as columns; the methods add to it."""

    params: Count
    flops: Count
    kernels: Count

    def linear(self, rows: Count, arriving: Count, leaving: Count, *, bias: bool = True) -> None:
        """A matrix on so many rows."""
        self.params += arriving * leaving + leaving * bias
        self.flops += 2 * rows * arriving * leaving
        self.kernels += 1

    def norm(self, width: Count) -> None:
        self.params += 2 * width
        self.kernels += 1

    def depthwise(self, rows: Count, width: Count, *, bias: bool) -> None:
        """A 3 x 3 kernel a channel."""
        self.params += (9 + bias) * width
        self.flops += 18 * rows * width
        self.kernels += 1

    def attention(self, queries: Count, keys: Count, width: Count) -> None:
        self.flops += 4 * queries * keys * width
        self.kernels += 1

    def mlp(self, rows: Count, arriving: Count, leaving: Count, depth: int = 2) -> None:
        """Linear, then an activation and Linear, depth - 1 times."""
        for step in range(depth):
            self.linear(rows, arriving if step == 0 else leaving, leaving)
        self.kernels += depth - 1


def of_each(function: Callable[[int], int], count: Count) -> Count:
    """A function of a number, or of every number of a column."""
    if isinstance(count, int):
        return function(count)
    values, places = np.unique(count, return_inverse=True)
    found: Count = np.array([function(value) for value in values.tolist()], dtype=np.int64)[places]
    return found
