"""Effective rank of the visual tokens at the language model's door."""

from __future__ import annotations

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.isolation import isolated
from proxies.registry import proxy


@proxy(
    paper="Roy and Vetterli 2007, The effective rank (EUSIPCO)",
    equation="eq. 4: exp of the entropy of the normalised singular values",
    needs=("images",),
)
def effective_rank(model: nn.Module, batch: ProbeBatch) -> float:
    """Of the (B * M, H) matrix of projected tokens, centred over the whole probe batch.

    Our hypothesis, not the paper's: compression that keeps more independent directions keeps more of the image.
    """
    with isolated(model), torch.no_grad():
        model.eval()
        tokens = model.encode_images(batch.pixel_values)  # type: ignore[operator]
    matrix = tokens.reshape(-1, tokens.shape[-1]).double()
    values = torch.linalg.svdvals(matrix - matrix.mean(dim=0))
    shares = values / values.sum().clamp_min(1e-30)
    entropy = -(shares * shares.clamp_min(1e-30).log()).sum()
    return float(entropy.exp())
