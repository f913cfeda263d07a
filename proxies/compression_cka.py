"""compression-cka: how much of the likeness between tokens survives compression and projection."""

from __future__ import annotations

from torch import nn

from proxies.batch import ProbeBatch
from proxies.pairs import alignment, centred_gram
from proxies.probing import before_and_after, sources
from proxies.registry import proxy


@proxy(
    name="compression-cka",
    paper="this project's hypothesis on token compression; CKA of Kornblith et al., ICML 2019 (arXiv "
    "1905.00414), eq. 3",
    equation="mean over samples of the linear CKA of the N encoder tokens and the M tokens that enter the LM, each "
    "of the N standing beside the one that covers it",
    needs=frozenset({"data", "weights"}),
    families="multimodal models whose encoder hands out its tokens",
)
def compression_cka(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """1 where the projector is an isometry and nothing is merged."""
    before, after = before_and_after(model, batch, splits)
    whole = after[:, sources(before.shape[1], after.shape[1])]
    shares = [alignment(centred_gram(a), centred_gram(b)) for a, b in zip(before, whole, strict=True)]
    return sum(shares) / len(shares)
