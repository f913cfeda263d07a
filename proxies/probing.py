"""What can be read of the tokens that enter the language model: where they come from, and what was there."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from proxies.anatomy import grid_tokens
from proxies.batch import ProbeBatch
from proxies.shared import once

RIDGE = 1e-2  # of the mean variance of a feature


def before_and_after(model: nn.Module, batch: ProbeBatch, splits: int) -> tuple[Tensor, Tensor]:
    """(B, N, D) of the encoder and (B, M, H) that enter the language model, in double precision."""
    return once("before_and_after", model, batch, splits, lambda: _before_and_after(model, batch, splits))


def _before_and_after(model: nn.Module, batch: ProbeBatch, splits: int) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        before = [grid_tokens(model, part) for part in batch.split(splits)]
    return torch.cat(before).double(), entering(model, batch, splits)


def entering(model: nn.Module, batch: ProbeBatch, splits: int) -> Tensor:
    """(B, M, H) that enter the language model, in double precision."""
    return once("entering", model, batch, splits, lambda: _entering(model, batch, splits))


def _entering(model: nn.Module, batch: ProbeBatch, splits: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([part.visual_tokens(model) for part in batch.split(splits)]).double()


def sources(before: int, after: int) -> Tensor:
    """(N,) which of the M tokens stands where each of the N tokens was: by grid, or in order where there is none."""
    fine, coarse = math.isqrt(before), math.isqrt(after)
    if fine**2 != before or coarse**2 != after:
        return torch.arange(before) * after // before
    line = torch.arange(fine) * coarse // fine
    return (line[:, None] * coarse + line[None, :]).flatten()


def read_out(tokens: Tensor, targets: Tensor) -> float:
    """R^2 of a ridge regression from tokens (n, d) to targets (n, k): fitted on every other row, tested on the rest.

    0 for what cannot be read at all, a constant among it.
    """
    fit, test = slice(0, None, 2), slice(1, None, 2)
    if len(tokens) < 4:
        return 0.0
    mean, goal = tokens[fit].mean(dim=0), targets[fit].mean(dim=0)
    x, y = tokens[fit] - mean, targets[fit] - goal
    strength = RIDGE * float(x.square().sum()) / min(x.shape)
    if not strength > 0:
        return 0.0
    gram = x @ x.T + strength * torch.eye(len(x), dtype=x.dtype)  # the dual form: rows are fewer than features
    guessed = (tokens[test] - mean) @ x.T @ torch.linalg.solve(gram, y) + goal
    spread = float((targets[test] - targets[test].mean(dim=0)).square().sum())
    missed = float((targets[test] - guessed).square().sum())
    return max(0.0, 1 - missed / spread) if spread > 1e-12 else 0.0
