"""token-alignment: how near the visual tokens lie to words."""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from proxies.anatomy import embedding
from proxies.batch import ProbeBatch
from proxies.probing import entering
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
    tokens = F.normalize(entering(model, batch, splits).flatten(0, 1).float(), dim=1)
    return float((tokens @ words.T).amax(dim=1).double().mean())
