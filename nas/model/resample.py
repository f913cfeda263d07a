"""Resamplers: M = N / factor queries read the tokens by attention, (B, N, D) -> (B, M, H)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.cost_connector import PERCEIVER_LAYERS, QFORMER_LAYERS, heads_of, perceiver_heads, qformer_width
from nas.model.attend import Attention
from nas.model.grid import to_grid, to_tokens


class QFormer(nn.Module):
    """BLIP-2's Q-Former (Li et al. 2023, arXiv 2301.12597, section 3.1): transformers' own, then one matrix.

    BERT-base over learned queries, cross-attention to the image in every second layer. 768 wide as there, or as the
    language model where that is less; the number of queries follows from the factor (32 there).
    """

    def __init__(self, width: int, hidden: int, queries: int) -> None:
        super().__init__()
        from transformers import Blip2QFormerConfig, Blip2QFormerModel

        inner = qformer_width(hidden)
        config: Any = Blip2QFormerConfig(
            hidden_size=inner, num_hidden_layers=QFORMER_LAYERS, num_attention_heads=heads_of(inner),
            intermediate_size=4 * inner, encoder_hidden_size=width, cross_attention_frequency=2,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        self.queries = nn.Parameter(torch.randn(1, queries, inner) * 0.02)
        self.former = Blip2QFormerModel(config)
        self.exit = nn.Linear(inner, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        found = self.former(query_embeds=self.queries.repeat(len(tokens), 1, 1), encoder_hidden_states=tokens)
        projected: Tensor = self.exit(found.last_hidden_state)
        return projected


class PerceiverLayer(nn.Module):
    """Latents attend to features and to themselves; then a feed-forward part without biases."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads, size = perceiver_heads(width)
        inner = self.heads * size
        self.norm_context, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width, bias=False), nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )  # fmt: skip

    def forward(self, latents: Tensor, context: Tensor) -> Tensor:
        """latents: (B, M, D); context: (B, N, D) -> (B, M, D)."""
        own = self.norm_latents(latents)
        both = torch.cat([self.norm_context(context), own], 1)
        keys, values = self._heads(self.key_value(both)).chunk(2, -1)
        mixed = F.scaled_dot_product_attention(self._heads(self.query(own)), keys, values)
        latents = latents + self.output(mixed.transpose(1, 2).flatten(2))
        fed: Tensor = latents + self.feed_forward(latents)
        return fed

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, parts heads d) -> (B, heads, T, parts d), the parts side by side in every head."""
        size = self.query.out_features // self.heads
        parts = x.reshape(*x.shape[:2], -1, self.heads, size)
        return parts.permute(0, 3, 1, 2, 4).flatten(3)


class Perceiver(nn.Module):
    """Flamingo's resampler (Alayrac et al. 2022, arXiv 2204.14198, appendix A.1.1): six layers, a norm, one matrix.

    `q = W_q latents`, `k, v = W_kv [features; latents]`, eight heads of 64. The number of latents follows from the
    factor (64 there). Differs: no embeddings of time, frames being merged before.
    """

    def __init__(self, width: int, hidden: int, latents: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, latents, width) * 0.02)
        self.layers = nn.ModuleList(PerceiverLayer(width) for _ in range(PERCEIVER_LAYERS))
        self.norm, self.exit = nn.LayerNorm(width), nn.Linear(width, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        latents = self.latents.repeat(len(tokens), 1, 1)
        for layer in self.layers:
            latents = layer(latents, tokens)
        projected: Tensor = self.exit(self.norm(latents))
        return projected


class TokenPacker(nn.Module):
    """Coarse queries, each of which reads its own block of tokens (Li et al. 2024, arXiv 2407.02392, section 3.2).

    Queries: bilinear resize by s, `Linear, LN`; keys and values: `Linear, GELU, Linear, LN` each; one query attends to
    s^2 keys; `Linear, GELU, Linear` to the language model. Differs: keys and values come from the tokens that are read,
    not from four layers of the encoder side by side.
    """

    def __init__(self, width: int, hidden: int, side: int, factor: int) -> None:
        super().__init__()
        self.scale = math.isqrt(factor)
        self.query = nn.Sequential(nn.Linear(width, width, bias=False), nn.LayerNorm(width))
        self.key, self.value = self._entry(width), self._entry(width)
        self.attention = Attention(width, heads_of(width, most=8))
        self.exit = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))

    @staticmethod
    def _entry(width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))

    def forward(self, tokens: Tensor) -> Tensor:
        grid = to_grid(tokens)
        batch, side = len(tokens), grid.shape[-1] // self.scale
        coarse = to_tokens(F.interpolate(grid, size=(side, side), mode="bilinear", align_corners=False))
        queries = self.query(coarse).flatten(0, 1).unsqueeze(1)  # (B M, 1, D)
        keys, values = self._blocks(self.key(tokens), side), self._blocks(self.value(tokens), side)
        mixed = self.attention(queries, keys, values)
        projected: Tensor = self.exit(mixed.reshape(batch, side * side, -1))
        return projected

    def _blocks(self, tokens: Tensor, side: int) -> Tensor:
        """(B, N, D) -> (B M, s^2, D), the tokens of each block."""
        s = self.scale
        blocks = tokens.reshape(len(tokens), side, s, side, s, -1).transpose(2, 3)
        return blocks.reshape(len(tokens) * side * side, s * s, -1)
