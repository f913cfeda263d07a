"""One forward pass, and what activation proxies read of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from proxies.anatomy import decoder_layers
from proxies.interception import ACTIVATIONS, Function
from proxies.registry import ProxyError

MOST_ROWS = 256  # positions that enter a layer's spectrum, evenly spaced


@dataclass(slots=True)
class Recording:
    """B samples, in the order of the batch. A layer without the thing leaves no entry."""

    codes: list[Tensor] = field(default_factory=list)  # (B, units) bool: inputs of an activation above zero
    outputs: list[Tensor] = field(default_factory=list)  # (B, positions, units) of an activation
    streams: list[Tensor] = field(default_factory=list)  # (B, T, H): into the first decoder layer, then out of each
    inner: list[Tensor] = field(default_factory=list)  # (B, T, F): what the last matrix of a layer's FFN reads
    peaks: list[Tensor] = field(default_factory=list)  # (B, heads): largest attention probability
    heights: list[Tensor] = field(default_factory=list)  # (B, heads): largest size in an attention's output


def spaced_rows(tokens: Tensor, most: int = MOST_ROWS) -> Tensor:
    """(B, T, C) -> at most `most` rows (n, C), evenly spaced, in double precision."""
    rows = tokens.flatten(0, 1)
    return rows[:: -(-len(rows) // most)].double()


def joined(parts: Sequence[Recording]) -> Recording:
    """Of the parts of a batch, in order."""
    whole = Recording()
    for name in Recording.__slots__:
        lists = [getattr(part, name) for part in parts]
        getattr(whole, name).extend(torch.cat(tensors) for tensors in zip(*lists, strict=True))
    return whole


@contextmanager
def heard(model: nn.Module, recording: Recording) -> Iterator[None]:
    """What runs inside is recorded, without its graph; the encoder counts only where it runs."""
    with _layers_heard(model, recording), _Listener(recording):
        yield


@contextmanager
def _layers_heard(model: nn.Module, recording: Recording) -> Iterator[None]:
    handles = []
    try:
        layers = decoder_layers(model)
    except ProxyError:
        layers = nn.ModuleList()

    def before(_: nn.Module, args: Any, kwargs: Any) -> None:
        if not recording.streams:
            recording.streams.append((_first(args) if args else kwargs["hidden_states"]).detach())

    def after(_: nn.Module, __: Any, output: Any) -> None:
        recording.streams.append((output if isinstance(output, Tensor) else output[0]).detach())

    def inside(_: nn.Module, args: Any) -> None:
        recording.inner.append(_first(args).detach())

    for layer in layers:
        handles.append(layer.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(layer.register_forward_hook(after))
        matrices = [module for module in layer.modules() if isinstance(module, nn.Linear)]
        if matrices:
            widest = max(matrices, key=lambda module: module.in_features)
            handles.append(widest.register_forward_pre_hook(inside))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _first(args: Any) -> Tensor:
    tensor: Tensor = args[0]
    return tensor


class _Listener(TorchFunctionMode):
    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self.recording = recording

    def __torch_function__(self, func: Function, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in ACTIVATIONS and args[0].ndim > 1:  # not a gate, which is no sample's; before, as some work in place
            self.recording.codes.append((args[0] > 0).flatten(1))
        output = func(*args, **kwargs)
        if func in ACTIVATIONS and output.ndim == 3:
            self.recording.outputs.append(output.detach())
        if func is F.scaled_dot_product_attention:
            with torch.no_grad():
                self.recording.peaks.append(attention_probabilities(*args, **kwargs).amax(dim=(-2, -1)))
                self.recording.heights.append(output.abs().amax(dim=(-2, -1)))
        return output


def attention_probabilities(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """(B, heads, Tq, d), (B, heads, Tk, d) -> (B, heads, Tq, Tk), as `scaled_dot_product_attention` weighs values.

    A row of a causal mask that sees one position only has probability 1 by necessity and is left at zero.
    """
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
    if is_causal:
        allowed = allowed.tril()
    if attn_mask is not None:
        allowed = allowed & (attn_mask if attn_mask.dtype is torch.bool else attn_mask > -1)
        if attn_mask.dtype is not torch.bool:
            scores = scores + attn_mask
    probabilities = scores.masked_fill(~allowed, -torch.inf).softmax(dim=-1)
    return probabilities.masked_fill(allowed.sum(dim=-1, keepdim=True) < 2, 0.0)
