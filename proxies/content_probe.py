"""content-probe: whether a visual token still tells what was there."""

from __future__ import annotations

import math

from torch import nn
from torch.nn import functional as F

from proxies.batch import ProbeBatch
from proxies.probing import before_and_after, read_out
from proxies.registry import proxy


@proxy(
    name="content-probe",
    paper="this project's hypothesis on token compression; linear probes of Alain & Bengio, 2016 (arXiv 1610.01644)",
    equation="R^2 of a ridge regression from a token to the mean colour (3) of the pixels that it stands for, on "
    "tokens left out of the fit",
    needs=frozenset({"data", "weights"}),
    families="multimodal models whose encoder hands out its tokens",
)
def content_probe(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Pixels of a token by the grid; a whole row of the image for a sequence that is no grid."""
    _, after = before_and_after(model, batch, splits)
    count = after.shape[1]
    side = math.isqrt(count)
    grid = (side, side) if side**2 == count else (count, 1)
    colours = F.adaptive_avg_pool2d(batch.pixel_values.double(), grid).flatten(2).transpose(1, 2)
    return read_out(after.flatten(0, 1), colours.flatten(0, 1))
