"""FLOPs of one forward pass over the probe batch, per example; FLOPs = 2 x multiply-adds."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from proxies.batch import ProbeBatch
from proxies.registry import proxy


@proxy(paper="Kaplan et al. 2020, arXiv 2001.08361", equation="C_forward of table 1, counted", needs=("images",))
def flops(model: nn.Module, batch: ProbeBatch) -> float:
    """Counted on the unfused attention path: the counter sees zero FLOPs in fused attention on a CPU."""
    one = batch.split(len(batch))[0]
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**one.inputs(), logits_to_keep=1)
    return float(counter.get_total_flops())
