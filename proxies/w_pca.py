"""w-pca: how many directions the feed-forward layers need, times the parameters."""

from __future__ import annotations

from torch import nn

from proxies.batch import ProbeBatch
from proxies.one_pass import record
from proxies.recording import spaced_rows
from proxies.registry import ProxyError, proxy
from proxies.spectrum import principal_shares

KEPT = 0.99


@proxy(
    name="w-pca",
    paper="Wang et al., W-PCA Based Gradient-Free Proxy for Efficient Search of Lightweight Language Models, "
    "ICLR 2025 (arXiv 2504.15983), eq. 4 to 6",
    equation="params * sum over layers of the smallest k such that k principal components hold 0.99 of the "
    "variance of what the FFN has inside",
    needs=frozenset({"data"}),
    families="transformers",
)
def w_pca(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Inside is what the last matrix of the FFN reads: after the activation and the gate."""
    layers = record(model, batch, splits).inner
    if not layers:
        raise ProxyError("w-pca needs feed-forward layers, but the decoder has no linear layer")
    dimensions = 0
    for inner in layers:
        held = principal_shares(spaced_rows(inner)).cumsum(dim=0)
        dimensions += int((held < KEPT).sum()) + 1
    return float(dimensions * sum(parameter.numel() for parameter in model.parameters()))
