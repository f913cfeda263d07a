"""block-influence: how much the layers that are there change their input."""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn import functional as F

from proxies.batch import ProbeBatch
from proxies.one_pass import streams
from proxies.registry import proxy


@proxy(
    name="block-influence",
    paper="Men et al., ShortGPT: Layers in Large Language Models are More Redundant Than You Expect, 2024 "
    "(arXiv 2403.03853), eq. 1",
    equation="sum over decoder layers of 1 - mean over positions of cos(x_l, x_(l+1))",
    needs=frozenset({"data", "weights"}),
    families="models with a stack of layers",
)
def block_influence(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Of pretrained weights with real text; positions that are padding are left out."""
    kept = batch.attention_mask.bool()
    hidden = [stream[kept].double() for stream in streams(model, batch, splits, "block-influence")]
    return sum(1 - float(F.cosine_similarity(a, b, dim=-1).mean()) for a, b in pairwise(hidden))
