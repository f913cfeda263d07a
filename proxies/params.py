"""Number of parameters: the baseline that every other proxy must beat."""

from __future__ import annotations

from torch import nn

from proxies.batch import ProbeBatch
from proxies.registry import proxy


@proxy(paper="Kaplan et al. 2020, arXiv 2001.08361", equation="N of eq. 1.1, with embeddings")
def params(model: nn.Module, batch: ProbeBatch) -> float:
    """Distinct parameters of the whole model; a tied embedding counts once."""
    return float(sum(weight.numel() for weight in model.parameters()))
