"""flops: what one request costs until the first token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from proxies.batch import ProbeBatch
from proxies.registry import proxy


def attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    """Scores and mixing: (B, heads, Tq, d) with (B, any heads, Tk, d) -> 2 B heads Tq Tk (d + d_value)."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[-2] * (width + value[-1])


# torch's counter knows no formula for the kernel that CPUs run and would count attention as nothing.
CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops}


@proxy(
    name="flops",
    paper="counted with torch.utils.flop_counter; fused attention added by formula",
    equation="2 x multiply-adds of matrix products, convolutions and attention; the causal half is not taken off",
    needs=frozenset({"data"}),
)
def flops(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Of the first sample: encoder, projector and prefill, logits of the last position only; on meta tensors."""
    sample = batch.take(0, 1)
    state = {name: tensor.to("meta") for name, tensor in chain(model.named_parameters(), model.named_buffers())}
    inputs = {
        "input_ids": sample.input_ids.to("meta"),
        "pixel_values": sample.pixel_values.to("meta"),
        "logits_to_keep": 1,
    }
    counter = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
    with torch.no_grad(), _countable_experts(model), counter:
        torch.func.functional_call(model, state, (), inputs)
    return float(counter.get_total_flops())


@contextmanager
def _countable_experts(model: nn.Module) -> Iterator[None]:
    """Experts run as a batch of the same products: their grouped kernel has no meta form in float32."""
    configs: dict[int, Any] = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    grouped = {key: one for key, one in configs.items() if getattr(one, "_experts_implementation", "") == "grouped_mm"}
    for config in grouped.values():
        config._experts_implementation = "batched_mm"
    try:
        yield
    finally:
        for config in grouped.values():
            config._experts_implementation = "grouped_mm"
