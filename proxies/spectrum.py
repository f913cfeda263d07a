"""What the spectrum of a layer's features says."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from proxies.batch import ProbeBatch
from proxies.one_pass import streams
from proxies.recording import spaced_rows


def smaller_gram(rows: Tensor) -> Tensor:
    """The smaller of rows rows' and rows' rows: their eigenvalues other than 0, and so their norms, are the same."""
    return rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows


def spectral_rank(rows: Tensor, floor: Callable[[Tensor], Tensor]) -> float:
    """exp(-sum_i p_i log p_i), p_i = singular value i / sum (Roy & Vetterli 2007); 0 where none is above the floor.

    rows: (n, d) in double precision. `floor` says, of the squared singular values in ascending order, up to where they
    are rounding.
    """
    # Squared singular values are the eigenvalues of the smaller Gram matrix.
    gram = smaller_gram(rows)
    squares = torch.linalg.eigvalsh(gram)
    values = squares[squares > floor(squares)].sqrt()
    if not values.numel():
        return 0.0
    shares = values / values.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))


def principal_shares(rows: Tensor) -> Tensor:
    """Share of each principal component in the variance of rows (n, d), largest first; empty where nothing varies."""
    centred = rows - rows.mean(dim=0)
    gram = smaller_gram(centred)
    values = torch.linalg.eigvalsh(gram).flip(0).clamp_min(0)
    values = values[values > 1e-12 * rows.square().sum().clamp_min(1e-300)]
    shares: Tensor = values / values.sum()
    return shares


def expressivities(model: nn.Module, batch: ProbeBatch, splits: int, what: str) -> list[float]:
    """Entropy of the principal shares of each decoder layer's output (Lee & Ham 2024, eq. 1)."""
    found = []
    for stream in streams(model, batch, splits, what)[1:]:
        shares = principal_shares(spaced_rows(stream))
        found.append(-float((shares * shares.log()).sum()))
    return found
