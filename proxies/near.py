"""near: how many directions the activations of each layer span."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from proxies.batch import ProbeBatch
from proxies.interception import ACTIVATIONS, Function
from proxies.registry import ProxyError, proxy
from proxies.spectrum import spectral_rank

MOST_ROWS = 256  # positions that enter a layer's singular values, evenly spaced


class OutputRecorder(TorchFunctionMode):
    """Keeps the output of every activation function that is called: (B, positions, units) each."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Tensor] = []

    def __torch_function__(self, func: Function, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in ACTIVATIONS and output.ndim == 3:
            self.outputs.append(output.detach())
        return output


@proxy(
    name="near",
    paper="Husistein et al., NEAR: A Training-Free Pre-Estimator of Machine Learning Model Performance, ICLR 2025 "
    "(arXiv 2408.08776), definition 3.1 and eq. 5",
    equation="sum over layers of the effective rank exp(-sum_i p_i log p_i) of the activations, p_i = s_i / sum s",
    needs=frozenset({"data"}),
    families="networks with activations between their layers",
)
def near(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Rows are the positions of all samples, at most 256 of them; after the activation function."""
    parts = []
    for part in batch.split(splits):
        recorder = OutputRecorder()
        with torch.no_grad(), recorder:
            model(**part.inputs(), logits_to_keep=1)
        parts.append(recorder.outputs)
    if not parts[0]:
        raise ProxyError("near needs activations, but the model called none")
    return sum(_effective_rank(torch.cat(layer).flatten(0, 1)) for layer in zip(*parts, strict=True))


def _effective_rank(rows: Tensor) -> float:
    rows = rows[:: -(-len(rows) // MOST_ROWS)].double()
    return spectral_rank(rows, lambda squares: 1e-12 * squares[-1].clamp_min(1e-300))
