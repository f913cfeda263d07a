"""cka: whether images and their texts lie alike before any training."""

from __future__ import annotations

from torch import nn

from proxies.batch import ProbeBatch
from proxies.pairs import alignment, centred_gram, pairs
from proxies.registry import proxy


@proxy(
    name="cka",
    paper="Kornblith et al., Similarity of Neural Network Representations Revisited, ICML 2019 (arXiv "
    "1905.00414), eq. 3; of encoder and LM as in Maniparambil et al., CVPR 2024 (arXiv 2401.05224)",
    equation="linear CKA of mean encoder tokens and mean text embeddings over the samples",
    needs=frozenset({"data", "weights"}),
    families="multimodal models whose encoder hands out its tokens",
)
def cka(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """0 for a single sample. Needs tens of real pairs to say anything."""
    images, texts = pairs(model, batch, splits)
    return alignment(centred_gram(images), centred_gram(texts))
