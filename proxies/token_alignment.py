"""token-alignment: how near the visual tokens lie to words."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from proxies.anatomy import embedding
from proxies.batch import ProbeBatch
from proxies.registry import proxy

MOST_WORDS = 4096


@proxy(
    name="token-alignment",
    paper="this project's measure; the gap is that of Huang et al., Deciphering Cross-Modal Alignment in LVLMs "
    "with Modality Integration Rate, 2024 (arXiv 2410.07167)",
    equation="mean over visual tokens of the largest cosine with an embedding of the vocabulary",
    needs=frozenset({"data", "weights"}),
    families="multimodal models with visual tokens",
)
def token_alignment(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """At most 4096 of the embeddings, evenly spaced."""
    words = embedding(model)
    words = F.normalize(words[:: -(-len(words) // MOST_WORDS)].float(), dim=1)
    total = 0.0
    for part in batch.split(splits):
        with torch.no_grad():
            tokens = F.normalize(part.visual_tokens(model).flatten(0, 1).float(), dim=1)
        total += float((tokens @ words.T).amax(dim=1).double().sum()) / (len(tokens) // len(part))
    return total / len(batch)
