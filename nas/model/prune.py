"""Pruning by the encoder's own attention: the last block's real queries and keys decide which tokens leave it.

VisionZip (Yang et al. 2024, arXiv 2412.04467) and PruMerge (Shang et al. 2024, arXiv 2403.15388).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from nas.cost_connector import contextual

NEIGHBOURS = 32  # of PruMerge


class LastAttention(TorchFunctionMode):
    """Catches queries and keys (B, heads, T, d) of the last attention that ran inside: norms and rotary included."""

    queries: Tensor
    keys: Tensor

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function is F.scaled_dot_product_attention:
            given = dict(zip(("query", "key"), args, strict=False)) | (kwargs or {})
            self.queries, self.keys = given["query"], given["key"]
        return function(*args, **(kwargs or {}))


def importance(queries: Tensor, keys: Tensor, prefix_tokens: int, has_class_token: bool) -> Tensor:
    """(B, N): attention of the class token to each patch, mean over heads; without one, the mean that it receives.

    queries, keys: (B, heads, prefix + N, d).
    """
    asking = queries[:, :, :1] if has_class_token else queries
    scores: Tensor = asking @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
    return scores.softmax(-1).mean((1, 2))[:, prefix_tokens:]


def visionzip(tokens: Tensor, scores: Tensor, keys: Tensor, left: int) -> Tensor:
    """The dominant tokens in raster order, then contextual ones: (B, N, D) -> (B, left, D).

    Of what is not dominant, evenly spaced targets take the mean of the others that are nearest to them by cosine of the
    keys (mean over heads), `target + mean` as in the paper's code. Differs: the class token is not handed on.
    """
    merged = contextual(left)
    kept, rest = _split(scores, left - merged)
    dominant = _take(tokens, kept)
    if not merged:
        return dominant
    places = [index * rest.shape[1] // merged for index in range(merged)]
    others = sorted(set(range(rest.shape[1])) - set(places))
    metric = F.normalize(_take(keys.mean(1), rest), dim=-1)
    values = _take(tokens, rest)
    nearest = (metric[:, others] @ metric[:, places].transpose(1, 2)).argmax(-1)  # (B, rest)
    assigned = (nearest.unsqueeze(-1) == torch.arange(merged, device=tokens.device)).to(tokens.dtype)
    mean = assigned.transpose(1, 2) @ values[:, others] / assigned.sum(1).clamp(min=1).unsqueeze(-1)
    return torch.cat([dominant, values[:, places] + mean], 1)


def prumerge(tokens: Tensor, scores: Tensor, keys: Tensor, left: int) -> Tensor:
    """Kept tokens in raster order, each with what its nearest dropped ones weigh, and one token of all dropped.

    `x + sum over the 32 dropped tokens nearest by keys of attention * token`, and `sum of attention * token` over all
    that are dropped. Differs from the paper: how many are kept is given (left - 1), not the count of outliers.
    """
    kept, rest = _split(scores, max(1, left - 1))
    flat = F.normalize(keys.transpose(1, 2).flatten(2), dim=-1)  # (B, N, heads * d)
    dropped, weight = _take(tokens, rest), scores.gather(1, rest).unsqueeze(-1)
    near = (_take(flat, kept) @ _take(flat, rest).transpose(1, 2)).topk(min(NEIGHBOURS, rest.shape[1]), -1).indices
    chosen = torch.zeros(*near.shape[:2], rest.shape[1], dtype=tokens.dtype, device=tokens.device).scatter(-1, near, 1)
    merged = _take(tokens, kept) + chosen @ (weight * dropped)
    return merged if left == 1 else torch.cat([merged, (weight * dropped).sum(1, keepdim=True)], 1)


def _split(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(indices of the `count` highest, indices of the rest), each in raster order."""
    order = scores.topk(scores.shape[-1], -1).indices
    return order[:, :count].sort(-1).values, order[:, count:].sort(-1).values


def _take(tokens: Tensor, places: Tensor) -> Tensor:
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


PRUNERS = {"visionzip": visionzip, "prumerge": prumerge}
