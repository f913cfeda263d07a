"""Caches of a language model, whose keys and values may take fewer bytes: bfloat16, or int8 with a scale a row."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import (
    CacheLayerMixin,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
)

Narrow = Literal["bf16", "int8"]
SCALE_BYTES = 4


def narrowed(tensor: Tensor, kind: Narrow) -> Tensor:
    """(..., d) float -> (..., d) bfloat16, or (..., d + 4) int8 whose last four bytes are the row's float32 scale."""
    if kind == "bf16":
        return tensor.to(torch.bfloat16)
    scale = (tensor.abs().amax(-1, keepdim=True).float() / 127).clamp(min=1e-8)
    codes = (tensor.float() / scale).round().to(torch.int8)
    return torch.cat([codes, scale.view(torch.int8)], dim=-1)


def widened(stored: Tensor, kind: Narrow, dtype: torch.dtype) -> Tensor:
    """What `narrowed` keeps of a tensor."""
    if kind == "bf16":
        return stored.to(dtype)
    scale = stored[..., -SCALE_BYTES:].contiguous().view(torch.float32)
    return (stored[..., :-SCALE_BYTES] * scale).to(dtype)


class _Kept:
    """Mixed into a cache layer of transformers: new positions are narrowed once, all of them are widened for a step.

    The widened copy lives as long as one layer's attention: the memory saved is real, the time is not.
    """

    kind: Narrow
    keys: Any
    values: Any
    is_initialized: bool

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        before = (self.keys, self.values) if self.is_initialized else None
        if before is not None:
            self.keys, self.values = (widened(stored, self.kind, key_states.dtype) for stored in before)
        found: tuple[Tensor, Tensor] = super().update(key_states, value_states, *args, **kwargs)  # type: ignore[misc]
        length = self.keys.shape[-2]
        new = [narrowed(states, self.kind) for states in (key_states, value_states)]
        if before is not None:
            new = [torch.cat(pair, dim=-2) for pair in zip(before, new, strict=True)]
        self.keys, self.values = (stored[..., -length:, :] for stored in new)
        return found


class NarrowLayer(_Kept, DynamicLayer):  # type: ignore[no-untyped-call]
    """Every position of a full-attention layer."""

    def __init__(self, kind: Narrow) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kind = kind


class NarrowSlidingLayer(_Kept, DynamicSlidingWindowLayer):  # type: ignore[no-untyped-call]
    """The window of a sliding-attention layer."""

    def __init__(self, kind: Narrow, window: int) -> None:
        super().__init__(window)
        self.kind = kind


class NarrowHybridLayer(_Kept, LinearAttentionAndFullAttentionLayer):  # type: ignore[misc, no-untyped-call, override]
    """The attention of a layer that has a state beside it; the state stays as it is."""

    def __init__(self, kind: Narrow) -> None:
        super().__init__()
        self.kind = kind


class StateCache(DynamicCache):
    """Of a model without attention: it counts the positions itself, which transformers' cache reads off keys."""

    seen = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """(positions of keys, their first): of forms whose other layers would attend (LFM2, cut to convolutions)."""
        return self.seen + query_length, 0


def empty_cache(config: PreTrainedConfig, kind: str = "native") -> DynamicCache:
    """What a language model fills; kind: native | bf16 | int8. One without any attention layer keeps states alone."""
    cache = DynamicCache(config=config)
    if not any(isinstance(layer, CacheLayerMixin) for layer in cache.layers):
        return StateCache(config=config)
    return cache if kind == "native" else narrow_cache(config, "bf16" if kind == "bf16" else "int8")


def narrow_cache(config: PreTrainedConfig, kind: Narrow) -> DynamicCache:
    """An empty cache of a language model; states of state spaces and convolutions stay as they are."""
    cache = DynamicCache(config=config)
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[index] = NarrowLayer(kind)
        elif type(layer) is DynamicSlidingWindowLayer:
            cache.layers[index] = NarrowSlidingLayer(kind, layer.sliding_window)
        elif type(layer) is LinearAttentionAndFullAttentionLayer:
            cache.layers[index] = NarrowHybridLayer(kind)
    return cache
