"""FastV: after a decoder layer, only the visual tokens that the last prompt token attends to most go on.

Chen et al. 2024 (arXiv 2403.06764), section 4: a token counts by the attention that it receives, mean over heads, in
the last layer that sees all of them. The others leave the sequence: later layers compute and cache less. Positions
stay.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

SCORED = "nas_scored"  # the name under which transformers knows the attention that keeps its last row


def _scored_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> Any:
    """The candidate's own attention; beside it, what the last query gives each key, (B, T), mean over heads."""
    if module.keeps_scores:
        module.scores = last_row(query, key, kwargs.get("scaling", query.shape[-1] ** -0.5), attention_mask)
    plain = sys.modules[type(module).__module__].eager_attention_forward
    function = plain if module.own_attention == "eager" else ALL_ATTENTION_FUNCTIONS[module.own_attention]
    return function(module, query, key, value, attention_mask, **kwargs)


def last_row(query: Tensor, key: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
    """query: (B, heads, T, d); key: (B, kv heads, T, d) -> (B, T), what the last query gives each key."""
    batch, heads, _, width = query.shape
    last = query[:, :, -1].reshape(batch, key.shape[1], heads // key.shape[1], width)
    scores = last @ key.transpose(-1, -2) * scaling
    if mask is not None:
        row = mask[:, :, -1:, : key.shape[2]]
        scores = scores.masked_fill(~row, float("-inf")) if row.dtype == torch.bool else scores + row
    return scores.softmax(-1).mean((1, 2))


class FastV:
    """Hooks on a decoder whose layers attend to everything. Off unless `mark` said where the visual tokens are."""

    def __init__(self, decoder: PreTrainedModel, layer: int, factor: int) -> None:
        self.factor = factor
        self.places: Tensor | None = None
        self.visual = 0
        self.kept: Tensor | None = None
        layers: Any = decoder.base_model.layers
        self.scorer: Any = layers[layer - 1].self_attn
        AttentionInterface.register(SCORED, _scored_attention)
        self.scorer.own_attention = decoder.config._attn_implementation
        self.scorer.keeps_scores = False
        self.scorer.config = copy.copy(self.scorer.config)
        self.scorer.config._attn_implementation = SCORED
        for index, later in enumerate(layers[layer:]):
            first = index == 0
            later.register_forward_pre_hook(
                lambda _, args, kwargs, first=first: self.shorten(args, kwargs, first), with_kwargs=True
            )

    def mark(self, places: Tensor | None, visual: int = 0) -> None:
        """places: (B, T), true at the `visual` tokens of each prompt; None for a decode step, or to drop nothing."""
        self.places, self.visual, self.kept = places, visual, None
        self.scorer.keeps_scores = places is not None

    def shorten(self, args: tuple[Any, ...], kwargs: dict[str, Any], first: bool) -> tuple[Any, dict[str, Any]]:
        """What a later layer is called with instead; the first of them chooses."""
        cache = kwargs.get("past_key_values")
        if self.places is not None:
            if first:
                self.kept = self._choose()
                args = (_rows(args[0], self.kept), *args[1:])
                if cache is not None:
                    cache.kept, cache.prompt = self.kept, self.places.shape[1]
            assert self.kept is not None
            return args, _picked(kwargs, self.kept)
        if cache is not None and getattr(cache, "kept", None) is not None and kwargs.get("attention_mask") is not None:
            mask = kwargs["attention_mask"]
            new = torch.arange(cache.prompt, mask.shape[-1], device=mask.device).expand(len(cache.kept), -1)
            kwargs = kwargs | {"attention_mask": _columns(mask, torch.cat([cache.kept, new], 1))}
        return args, kwargs

    def _choose(self) -> Tensor:
        """(B, T'), in order: all text, and the visual tokens with the highest scores; as many in every row."""
        assert self.places is not None
        left = self.visual // self.factor
        scores = self.scorer.scores.masked_fill(~self.places, float("-inf"))
        keep = (~self.places).scatter(1, scores.topk(left, dim=1).indices, True)
        return keep.float().topk(keep.shape[1] - self.visual + left, dim=1).indices.sort(dim=1).values


def _rows(states: Tensor, kept: Tensor) -> Tensor:
    """(B or 1, T, d) -> (B, T', d)."""
    states = states.expand(len(kept), -1, -1)
    return states.gather(1, kept.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


def _columns(mask: Tensor, kept: Tensor) -> Tensor:
    """(B or 1, 1, Q, T) -> (B, 1, Q, T')."""
    mask = mask.expand(len(kept), -1, -1, -1)
    return mask.gather(3, kept[:, None, None].expand(-1, 1, mask.shape[2], -1))


def _picked(kwargs: dict[str, Any], kept: Tensor) -> dict[str, Any]:
    """What a decoder hands to each of its layers, for the kept positions only."""
    picked = dict(kwargs)
    if (rotary := kwargs.get("position_embeddings")) is not None:
        picked["position_embeddings"] = tuple(_rows(part, kept) for part in rotary)
    if (positions := kwargs.get("position_ids")) is not None:
        picked["position_ids"] = positions.expand(len(kept), -1).gather(1, kept)
    if (mask := kwargs.get("attention_mask")) is not None:
        rows = mask.expand(len(kept), -1, -1, -1)
        rows = rows.gather(2, kept[:, None, :, None].expand(-1, 1, -1, rows.shape[3]))
        picked["attention_mask"] = _columns(rows, kept)
    return picked
