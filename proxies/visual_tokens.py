"""visual-tokens: what of an image enters the language model. A baseline."""

from __future__ import annotations

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.registry import proxy


@proxy(
    name="visual-tokens",
    paper="counted; Li et al., Inference Optimal VLMs Need Only One Visual Token but Larger Models, ICLR 2025 "
    "(arXiv 2411.03312)",
    equation="M, the visual tokens of one image",
    families="multimodal models with visual tokens",
    reads_decoder=False,
)
def visual_tokens(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Counted on the first sample."""
    with torch.no_grad():
        return float(batch.take(0, 1).visual_tokens(model).shape[1])
