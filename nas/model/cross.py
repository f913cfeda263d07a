"""Gated cross-attention: the decoder reads the image between its layers (Alayrac et al. 2022, arXiv 2204.14198, 3.1.2).

    y = y + tanh(a) CrossAttention(LN(y), x);  y = y + tanh(b) FFN(LN(y))

x: visual tokens (B, M, H) behind one matrix, which take no place in the sequence. Both gates start at 0, so that the
untrained model is the language model alone. Differs: every text token sees every image of its prompt, not the last one
before it; heads are of 64 channels or more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn, zeros
from torch.nn import functional as F

from nas.cost_connector import heads_of
from nas.cost_cross import CROSS_EVERY, WIDENING

KeysValues = tuple[Tensor, Tensor]


class GatedCrossAttention(nn.Module):
    """One gated layer; `read` is called by the decoder layer that it stands in front of."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.heads = heads_of(hidden)
        self.norm = nn.LayerNorm(hidden)
        self.q_proj, self.k_proj = nn.Linear(hidden, hidden, bias=False), nn.Linear(hidden, hidden, bias=False)
        self.v_proj, self.out_proj = nn.Linear(hidden, hidden, bias=False), nn.Linear(hidden, hidden, bias=False)
        self.feed_norm = nn.LayerNorm(hidden)
        self.up_proj = nn.Linear(hidden, WIDENING * hidden, bias=False)
        self.down_proj = nn.Linear(WIDENING * hidden, hidden, bias=False)
        self.attention_gate, self.feed_gate = nn.Parameter(zeros(1)), nn.Parameter(zeros(1))
        self.seen: KeysValues | None = None  # of the request that is running

    def keys_values(self, visual: Tensor) -> KeysValues:
        """visual: (n, M, H) -> two of (n, M, H)."""
        return self.k_proj(visual), self.v_proj(visual)

    def forward(self, text: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """text: (B, T, H); keys, values: (n, M, H), n / B images a text -> (B, T, H)."""
        if len(keys) % len(text):
            raise ValueError(f"every text needs the same number of images, but {len(text)} texts have {len(keys)}")
        q, k, v = (
            part.reshape(len(text), -1, self.heads, part.shape[-1] // self.heads).transpose(1, 2)
            for part in (self.q_proj(self.norm(text)), keys, values)
        )
        mixed = self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        text = text + self.attention_gate.tanh() * mixed
        fed = self.down_proj(F.relu(self.up_proj(self.feed_norm(text))).square())
        gated: Tensor = text + self.feed_gate.tanh() * fed
        return gated

    def read(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """In front of a decoder layer; without an image nothing happens."""
        if self.seen is not None:
            args = (self(args[0], *self.seen), *args[1:])
        return args, kwargs


class CrossAttention(nn.Module):
    """As a projector one matrix, (B, N, D) -> (B, N, H); and the gated layers, once `insert` has put them in."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.entry = nn.Linear(width, hidden)
        self.layers = nn.ModuleList()

    def insert(self, decoder: nn.Module) -> None:
        """In front of the first and every further CROSS_EVERY-th decoder layer."""
        layers: Any = decoder.layers
        for layer in layers[::CROSS_EVERY]:
            gated = GatedCrossAttention(self.entry.out_features)
            layer.register_forward_pre_hook(gated.read, with_kwargs=True)
            self.layers.append(gated)

    def forward(self, tokens: Tensor) -> Tensor:
        projected: Tensor = self.entry(tokens)
        return projected

    @contextmanager
    def reading(self, visual: Tensor | None, cache: Any = None) -> Iterator[None]:
        """While the decoder runs, it reads `visual` (n, M, H); without one, what an earlier step left in the cache."""
        gated: Any = self.layers
        if visual is None:
            found = getattr(cache, "visual", [None] * len(gated))
        else:
            found = [layer.keys_values(visual) for layer in gated]
            if cache is not None:
                cache.visual = found
        try:
            for layer, seen in zip(gated, found, strict=True):
                layer.seen = seen
            yield
        finally:
            for layer in gated:
                layer.seen = None
