"""params: how many parameters the model has. The baseline that every other proxy must beat."""

from __future__ import annotations

from torch import nn

from proxies.batch import ProbeBatch
from proxies.registry import proxy


@proxy(
    name="params",
    paper="counted; Kaplan et al., Scaling Laws for Neural Language Models, 2020 (arXiv 2001.08361)",
    equation="number of scalars in the model's parameters; a tied tensor counts once",
    reads_decoder=False,
)
def params(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """The batch plays no part. Encoder, projector, language model and embedding together."""
    return float(sum(parameter.numel() for parameter in model.parameters()))
