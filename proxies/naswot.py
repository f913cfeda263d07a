"""naswot: how differently the samples of a batch switch the model's activations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from proxies.batch import ProbeBatch
from proxies.interception import ACTIVATIONS, Function
from proxies.registry import ProxyError, proxy


class CodeRecorder(TorchFunctionMode):
    """Keeps, of every activation that is called, which of its inputs were positive: (B, units) each."""

    def __init__(self) -> None:
        super().__init__()
        self.codes: list[Tensor] = []

    def __torch_function__(self, func: Function, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ACTIVATIONS:
            self.codes.append((args[0].detach() > 0).flatten(1))
        return func(*args, **(kwargs or {}))


@proxy(
    name="naswot",
    paper="Mellor et al., Neural Architecture Search without Training, ICML 2021 (arXiv 2006.04647)",
    equation="log |det K|, K_ij = number of units on which samples i and j agree (eq. 2); a unit of a GELU or SiLU "
    "counts as on where its input is positive",
    needs=frozenset({"data"}),
    families="networks with activations between their layers",
)
def naswot(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Units are those that run on this batch, at every position; needs samples that differ."""
    codes = [_codes(model, part) for part in batch.split(splits)]
    if not codes[0]:
        raise ProxyError("naswot needs activations, but the model called none")
    kernel = torch.zeros(len(batch), len(batch), dtype=torch.float64)
    for parts in zip(*codes, strict=True):
        signs = torch.cat(parts).float().mul_(2).sub_(1)  # agreement = (units + s_i . s_j) / 2, exact in fp32
        kernel += (signs.shape[1] + (signs @ signs.T).double()) / 2
    sign, logarithm = torch.linalg.slogdet(kernel)
    if not sign > 0:
        raise ProxyError("naswot needs samples that differ, but two of the batch have the same code")
    return float(logarithm)


def _codes(model: nn.Module, part: ProbeBatch) -> list[Tensor]:
    recorder = CodeRecorder()
    with torch.no_grad(), recorder:
        model(**part.inputs(), logits_to_keep=1)
    return recorder.codes
