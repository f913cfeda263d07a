"""synflow: how much signal can flow through the model's weights, as a logarithm."""

from __future__ import annotations

import math

from torch import nn

from proxies.batch import ProbeBatch
from proxies.interception import positive_flow
from proxies.registry import proxy


@proxy(
    name="synflow",
    paper="Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow, "
    "NeurIPS 2020 (arXiv 2006.05467)",
    equation="log sum over weights of |w| * dR/d|w|, R = 1' f_|w|(1): synaptic flow, f linearised",
    needs=frozenset({"grad", "weights"}),
)
def synflow(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """No data: an image of ones, its mean visual token, one position of the language model, the sum of its logits.

    Where it differs from the paper: transformers are linearised as in `PositiveNetwork`; biases, position embeddings
    and class tokens carry no path from the input and are left out; sums are kept as logarithms.
    """
    log_signal, flow = positive_flow(model, batch, "synflow")
    return log_signal + math.log(flow)
