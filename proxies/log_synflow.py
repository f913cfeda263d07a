"""log-synflow: synaptic flow with each gradient as a logarithm."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from proxies.batch import ProbeBatch
from proxies.interception import positive_flow
from proxies.registry import proxy


@proxy(
    name="log-synflow",
    paper="Cavagnero et al., FreeREA: Training-Free Evolution-Based Architecture Search, WACV 2023 (arXiv "
    "2207.05135), eq. 2",
    equation="sum over weights of |w| * log(1 + dR/d|w|), R as in synflow",
    needs=frozenset({"grad", "weights"}),
)
def log_synflow(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Of matrices and convolutions, linearised as in synflow."""
    parts: list[tuple[Tensor, Tensor, float]] = []
    log_signal, _ = positive_flow(model, batch, "log-synflow", lambda *part: parts.append(part))
    score = 0.0
    for size, grad, log_scale in parts:
        logs = grad.double().log() + (log_scale + log_signal)
        score += float((size * F.softplus(logs)).sum())
    return score
