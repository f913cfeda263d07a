"""Closed-form cost of gated cross-attention (Alayrac et al. 2022): what it adds to a decoder. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

from nas.cost_language import Count
from nas.records import DTYPE_BYTES

CROSS_EVERY = 4  # decoder layers between two gated cross-attentions (Alayrac et al. 2022, table 4, 9B)
WIDENING = 4  # of the gated feed-forward part


@dataclass(frozen=True, slots=True)
class CrossStack(Generic[Count]):
    """Gated layers in front of the first and every further CROSS_EVERY-th of `depth` decoder layers; 0 = none.

    Numbers, or columns of them.
    """

    hidden: Count
    depth: Count

    @property
    def count(self) -> Count:
        """Gated layers."""
        return -(-self.depth // CROSS_EVERY)

    @property
    def params(self) -> Count:
        """Queries, keys, values, output, feed-forward part, two norms and two gates a layer."""
        return self.count * ((4 + 2 * WIDENING) * self.hidden**2 + 4 * self.hidden + 2)

    def entry_flops(self, visual: Count) -> Count:
        """Keys and values of `visual` tokens: once a request."""
        return self.count * 2 * visual * 2 * self.hidden**2

    def flops(self, tokens: Count, visual: Count) -> Count:
        """`tokens` positions of text that read `visual` tokens."""
        products = 2 * tokens * (2 + 2 * WIDENING) * self.hidden**2
        return self.count * (products + 4 * tokens * visual * self.hidden)

    def cache_bytes(self, visual: Count) -> Count:
        """Keys and values that are kept of the visual tokens, float32 whatever the decoder's own are."""
        return self.count * 2 * visual * self.hidden * DTYPE_BYTES
