"""effective-rank: how many directions the visual tokens span at the language model's door."""

from __future__ import annotations

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.probing import entering
from proxies.registry import proxy
from proxies.spectrum import spectral_rank

MOST_TOKENS = 512  # the spectrum of thousands takes most of a candidate's time


@proxy(
    name="effective-rank",
    paper="Roy & Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007, definition 1; "
    "taking it of the tokens that enter the language model is this project's hypothesis",
    equation="exp(-sum_i p_i log p_i), p_i = singular value i / sum of singular values, of the centred tokens",
    needs=frozenset({"data", "weights"}),
    reads_decoder=False,
    families="multimodal models with visual tokens",
)
def effective_rank(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Of the B x M tokens of the batch together, `MOST_TOKENS` drawn of more; their mean is taken off.

    0 where all are equal.
    """
    tokens = entering(model, batch, splits).flatten(0, 1)
    if len(tokens) > MOST_TOKENS:
        tokens = tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))[:MOST_TOKENS]]
    centred = tokens - tokens.mean(dim=0)
    rounding = max(centred.shape) * torch.finfo(torch.float32).eps ** 2 * tokens.square().sum()
    return spectral_rank(centred, lambda squares: rounding)
