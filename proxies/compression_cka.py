"""compression-cka: how much of the likeness between tokens survives compression and projection."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from proxies.batch import ProbeBatch
from proxies.probing import before_and_after, sources
from proxies.registry import proxy
from proxies.spectrum import smaller_gram


@proxy(
    name="compression-cka",
    paper="this project's hypothesis on token compression; CKA of Kornblith et al., ICML 2019 (arXiv "
    "1905.00414), eq. 3",
    equation="mean over samples of the linear CKA of the N encoder tokens and the M tokens that enter the LM, each "
    "of the N standing beside the one that covers it",
    needs=frozenset({"data", "weights"}),
    reads_decoder=False,
    families="multimodal models whose encoder hands out its tokens",
)
def compression_cka(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """1 where the projector is an isometry and nothing is merged."""
    before, after = before_and_after(model, batch, splits)
    place = sources(before.shape[1], after.shape[1])
    shares = [covered_cka(fine, coarse, place) for fine, coarse in zip(before, after, strict=True)]
    return sum(shares) / len(shares)


def covered_cka(fine: Tensor, coarse: Tensor, place: Tensor) -> float:
    """Linear CKA of fine (N, D) with coarse[place] (N, H), without repeating a row of coarse (M, H)."""
    counts = torch.bincount(place, minlength=len(coarse)).to(coarse)[:, None]
    a, b = fine - fine.mean(dim=0), coarse - (counts * coarse).sum(dim=0) / len(fine)
    covered = torch.zeros(len(coarse), a.shape[1], dtype=a.dtype).index_add_(0, place, a)
    weighted = counts.sqrt() * b
    across = float((covered.T @ b).square().sum())  # |A'B|^2 is the inner product of the N x N Gram matrices
    size = float(smaller_gram(a).norm() * smaller_gram(weighted).norm())
    return across / size if size > 1e-12 * len(fine) ** 2 else 0.0
