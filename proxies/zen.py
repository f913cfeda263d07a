"""zen: how far a small change of the visual tokens moves the logits."""

from __future__ import annotations

import math

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.registry import ProxyError, proxy

STEP = 0.01


@proxy(
    name="zen",
    paper="Lin et al., Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition, ICCV 2021 (arXiv 2102.01063), "
    "algorithm 1; of visual tokens, scaled to their deviation; norms make the paper's batch-norm term constant",
    equation="log of mean over samples of |f(x) - f(x + 0.01 e)|, e standard normal in units of x's deviation",
    needs=frozenset({"data"}),
    families="multimodal models with visual tokens",
)
def zen(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """f gives the logits of the last position after the visual tokens alone."""
    with torch.no_grad():
        tokens = torch.cat([part.visual_tokens(model) for part in batch.split(splits)])
        noise = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0), dtype=tokens.dtype)
        moved = tokens + STEP * tokens.flatten(1).std(dim=1).view(-1, 1, 1) * noise
        size = -(-len(tokens) // splits)
        distances = [
            (_logits(model, a) - _logits(model, b)).norm(dim=-1)
            for a, b in zip(torch.split(tokens, size), torch.split(moved, size), strict=True)
        ]
    distance = float(torch.cat(distances).double().mean())
    if not distance > 0:
        raise ProxyError("zen found logits that do not depend on the visual tokens")
    return math.log(distance)


def _logits(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(inputs_embeds=tokens, logits_to_keep=1).logits
    return logits[:, -1].double()
