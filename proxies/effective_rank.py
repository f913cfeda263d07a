"""effective-rank: how many directions the visual tokens span at the language model's door."""

from __future__ import annotations

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.registry import proxy
from proxies.spectrum import spectral_rank


@proxy(
    name="effective-rank",
    paper="Roy & Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007, definition 1; "
    "taking it of the tokens that enter the language model is this project's hypothesis",
    equation="exp(-sum_i p_i log p_i), p_i = singular value i / sum of singular values, of the centred tokens",
    needs=frozenset({"data", "weights"}),
    families="multimodal models with visual tokens",
)
def effective_rank(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Of all B x M tokens of the batch together, their mean taken off; 0 where all are equal."""
    with torch.no_grad():
        tokens = torch.cat([part.visual_tokens(model) for part in batch.split(splits)]).flatten(0, 1).double()
    centred = tokens - tokens.mean(dim=0)
    rounding = max(centred.shape) * torch.finfo(torch.float32).eps ** 2 * tokens.square().sum()
    return spectral_rank(centred, lambda squares: rounding)
