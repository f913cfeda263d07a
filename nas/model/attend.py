"""Multi-head attention between two sets of tokens, as projectors need it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """`softmax(Q K^T / sqrt(d)) V` with a matrix before and after (Vaswani et al. 2017): (B, M, C) -> (B, M, C).

    torch's MultiheadAttention has a fast path that no counter of FLOPs and no exporter sees.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """queries: (B, M, C); keys, values: (B, N, C)."""
        q, k, v = (
            projection(x).reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)
            for projection, x in ((self.q_proj, queries), (self.k_proj, keys), (self.v_proj, values))
        )
        mixed: Tensor = self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed
