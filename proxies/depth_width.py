"""depth-width: decoder layers times their width. A baseline."""

from __future__ import annotations

from torch import nn

from proxies.anatomy import decoder_layers, embedding
from proxies.batch import ProbeBatch
from proxies.registry import proxy


@proxy(
    name="depth-width",
    paper="counted; the best ranking known on 500 trained FlexiBERT models (Serianni & Kalita 2023, arXiv 2306.00288)",
    equation="n_layer * d_model",
    families="models with a stack of layers",
    reads_decoder=False,
)
def depth_width(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """The batch plays no part."""
    return float(len(decoder_layers(model)) * embedding(model).shape[1])
