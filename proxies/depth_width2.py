"""depth-width2: decoder layers times their width squared, what attention and FFN grow with. A baseline."""

from __future__ import annotations

from torch import nn

from proxies.anatomy import decoder_layers, embedding
from proxies.batch import ProbeBatch
from proxies.registry import proxy


@proxy(
    name="depth-width2",
    paper="counted; Kaplan et al., Scaling Laws for Neural Language Models, 2020 (arXiv 2001.08361), section 2.1",
    equation="n_layer * d_model^2, a twelfth of the non-embedding parameters of a plain transformer",
    families="models with a stack of layers",
    reads_decoder=False,
)
def depth_width2(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """The batch plays no part."""
    return float(len(decoder_layers(model)) * embedding(model).shape[1] ** 2)
