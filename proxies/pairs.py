"""Images beside their texts, as the encoder and the language model see them before they ever met."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from proxies.anatomy import embedding, grid_tokens
from proxies.batch import ProbeBatch
from proxies.shared import once


def pairs(model: nn.Module, batch: ProbeBatch, splits: int) -> tuple[Tensor, Tensor]:
    """(B, D) mean of the encoder's tokens, (B, H) mean embedding of the text, in double precision.

    Text is every attended token but the image's placeholders.
    """
    return once("pairs", model, batch, splits, lambda: _pairs(model, batch, splits))


def _pairs(model: nn.Module, batch: ProbeBatch, splits: int) -> tuple[Tensor, Tensor]:
    images = []
    for part in batch.split(splits):
        with torch.no_grad():
            images.append(grid_tokens(model, part).mean(dim=1).double())
    text = batch.attention_mask.bool()
    if batch.image_token_id is not None:
        text = text & (batch.input_ids != batch.image_token_id)
    text = text.double().unsqueeze(-1)
    embedded = embedding(model)[batch.input_ids].double()
    return torch.cat(images), (embedded * text).sum(dim=1) / text.sum(dim=1).clamp_min(1)


def distances(rows: Tensor) -> Tensor:
    """(n, d) -> (n, n) Euclidean distances over their largest."""
    found = torch.cdist(rows, rows)
    return found / found.max().clamp_min(1e-30)


def centred_gram(rows: Tensor) -> Tensor:
    """(n, d) -> (n, n), inner products after taking the mean off."""
    centred = rows - rows.mean(dim=0)
    return centred @ centred.T


def alignment(a: Tensor, b: Tensor) -> float:
    """Linear CKA of two centred Gram matrices (Kornblith et al. 2019, eq. 3); 0 where one of them is constant."""
    size = float(a.norm() * b.norm())
    return float((a * b).sum()) / size if size > 1e-12 * float(a.numel()) else 0.0
