"""width: size of the residual stream. A baseline."""

from __future__ import annotations

from torch import nn

from proxies.anatomy import embedding
from proxies.batch import ProbeBatch
from proxies.registry import proxy


@proxy(
    name="width",
    paper="counted; Kaplan et al., Scaling Laws for Neural Language Models, 2020 (arXiv 2001.08361), section 2.1",
    equation="d_model",
    reads_decoder=False,
)
def width(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """The batch plays no part."""
    return float(embedding(model).shape[1])
