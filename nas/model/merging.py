"""ToMe: similar tokens merged by bipartite soft matching (Bolya et al. 2023, arXiv 2210.09461, section 3)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.cost_vision import merging_lengths
from nas.model.prune import LastAttention


class TokenMerging(nn.Module):
    """At the encoder's output: (B, N, D) -> (B, N / factor, D), for any encoder.

    Rounds that merge at most half of the tokens run until N / factor are left. Differs from the paper: one place
    instead of every block, so that the similarity is that of the tokens, not of keys, and the encoder is not sped up.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, tokens: Tensor) -> Tensor:
        left, sizes = tokens.shape[1] // self.factor, torch.ones_like(tokens[..., :1])
        while tokens.shape[1] > left:
            tokens, sizes = merge(tokens, sizes, min(tokens.shape[1] // 2, tokens.shape[1] - left), tokens)
        return tokens


class MergingBlocks(nn.Sequential):
    """The blocks of a plain ViT of timm, with merging between attention and feed-forward part of each, as in the paper.

    (B, prefix + N, D) -> (B, prefix + N / factor, D), r tokens a block. Similarity is that of the keys, mean over
    heads; attention is proportional, `softmax(Q K^T / sqrt(d) + log s)` with s the patches a token stands for (its
    equation 1). Prefix tokens never merge. Differs: r follows from the factor, spread evenly over the blocks that run
    (`merging_lengths`), and merged tokens stay in raster order.
    """

    def __init__(self, blocks: nn.Sequential, prefix: int, factor: int) -> None:
        super().__init__(*blocks)
        self.prefix, self.factor = prefix, factor

    def forward(self, states: Tensor) -> Tensor:
        blocks: Any = self
        prefix, sizes, weights = self.prefix, torch.ones_like(states[..., :1]), None
        lengths = merging_lengths(states.shape[1] - prefix, len(self), self.factor)
        for block, (before, after) in zip(blocks, pairwise(lengths), strict=True):
            with LastAttention() as attention:
                mixed = block.attn(block.norm1(states), attn_mask=weights)
            states = states + block.drop_path1(block.ls1(mixed))
            keys = attention.keys.mean(1)[:, prefix:]
            merged, grown = merge(states[:, prefix:], sizes[:, prefix:], before - after, keys)
            states, sizes = torch.cat([states[:, :prefix], merged], 1), torch.cat([sizes[:, :prefix], grown], 1)
            weights = sizes.log().transpose(1, 2).unsqueeze(1)  # (B, 1, 1, T)
            states = states + block.drop_path2(block.ls2(block.mlp(block.norm2(states))))
        return states


def merge(tokens: Tensor, sizes: Tensor, count: int, metric: Tensor) -> tuple[Tensor, Tensor]:
    """One round that removes `count` tokens: (B, n, D), (B, n, 1) -> (B, n - count, D), (B, n - count, 1).

    Splits the tokens in turn into A and B, ties each of A to the nearest of B by cosine of `metric` (B, n, d), and
    merges the strongest ties into means weighted by the sizes; in raster order.
    """
    metric = F.normalize(metric, dim=-1)
    nearness, partner = (metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)).max(-1)  # (B, |A|)
    order = nearness.topk(nearness.shape[-1], -1).indices
    gone, stay = order[:, :count], order[:, count:]
    weighted = torch.cat([tokens * sizes, sizes], -1)  # (B, n, D + 1)
    a, b = weighted[:, ::2], weighted[:, 1::2]
    width = weighted.shape[-1]
    target = partner.gather(1, gone).unsqueeze(-1).expand(-1, -1, width)
    b = b.scatter_add(1, target, a.gather(1, gone.unsqueeze(-1).expand(-1, -1, width)))
    kept = torch.cat([a.gather(1, stay.unsqueeze(-1).expand(-1, -1, width)), b], 1)
    odd = 2 * torch.arange(b.shape[1], device=tokens.device).expand(len(tokens), -1) + 1
    raster = torch.cat([2 * stay, odd], 1).sort(-1).indices.unsqueeze(-1).expand(-1, -1, width)
    kept = kept.gather(1, raster)
    return kept[..., :-1] / kept[..., -1:], kept[..., -1:]
