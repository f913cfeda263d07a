"""The effective rank of a matrix, from its singular values."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def spectral_rank(rows: Tensor, floor: Callable[[Tensor], Tensor]) -> float:
    """exp(-sum_i p_i log p_i), p_i = singular value i / sum (Roy & Vetterli 2007); 0 where none is above the floor.

    rows: (n, d) in double precision. `floor` says, of the squared singular values in ascending order, up to where they
    are rounding.
    """
    # Squared singular values are the eigenvalues of the smaller Gram matrix.
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    squares = torch.linalg.eigvalsh(gram)
    values = squares[squares > floor(squares)].sqrt()
    if not values.numel():
        return 0.0
    shares = values / values.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))
