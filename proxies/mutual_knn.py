"""mutual-knn: how many neighbours of an image are neighbours of its text."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from proxies.batch import ProbeBatch
from proxies.pairs import pairs
from proxies.registry import proxy

NEIGHBOURS = 10


@proxy(
    name="mutual-knn",
    paper="Huh et al., The Platonic Representation Hypothesis, ICML 2024 (arXiv 2405.07987), eq. 11 of appendix A",
    equation="mean over samples of |kNN among images and kNN among texts| / k, k = 10 or half the other samples",
    needs=frozenset({"data", "weights"}),
    families="multimodal models whose encoder hands out its tokens",
)
def mutual_knn(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """By cosine, as there; 0 for a single sample."""
    images, texts = pairs(model, batch, splits)
    others = len(batch) - 1
    if not others:
        return 0.0
    k = min(NEIGHBOURS, -(-others // 2))
    near = []
    for rows in (images, texts):
        unit = F.normalize(rows, dim=1)
        likeness = (unit @ unit.T).fill_diagonal_(-2)
        near.append(torch.zeros_like(likeness).scatter_(1, likeness.topk(k, dim=1).indices, 1))
    return float((near[0] * near[1]).sum(dim=1).mean()) / k
