"""depth: decoder layers. A baseline."""

from __future__ import annotations

from torch import nn

from proxies.anatomy import decoder_layers
from proxies.batch import ProbeBatch
from proxies.registry import proxy


@proxy(
    name="depth",
    paper="counted; Kaplan et al., Scaling Laws for Neural Language Models, 2020 (arXiv 2001.08361), section 2.1",
    equation="n_layer",
    families="models with a stack of layers",
    reads_decoder=False,
)
def depth(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """The batch plays no part."""
    return float(len(decoder_layers(model)))
