"""Where a multimodal model keeps its decoder layers and its embedding, whatever library built it."""

from __future__ import annotations

import re

from torch import Tensor, nn

from proxies.batch import ProbeBatch
from proxies.registry import ProxyError

KEYS_VALUES = re.compile(r"(^|[._])(k|v)_proj\.weight$")
FUSED = re.compile(r"(^|[._])qkv(_proj)?\.weight$")


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The longest list of layers outside of vision encoder and projector. Raises: ProxyError where there is none."""
    lists = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and name.partition(".")[0] not in ("vision", "projector")
    ]
    if not lists:
        raise ProxyError("this proxy needs a stack of decoder layers, but the model has no list of layers")
    return max(lists, key=len)


def embedding(model: nn.Module) -> Tensor:
    """(V, H), the language model's input embedding."""
    weight: Tensor = model.get_input_embeddings().weight  # type: ignore[operator]
    return weight.detach()


def body_matrices(model: nn.Module) -> list[Tensor]:
    """Weight matrices of the decoder layers."""
    return [weight for weight in decoder_layers(model).parameters() if weight.ndim == 2]


def kv_width(model: nn.Module) -> int:
    """Numbers that one token leaves in the KV cache, all layers together."""
    total = 0
    for name, weight in decoder_layers(model).named_parameters():
        if KEYS_VALUES.search(name):
            total += weight.shape[0]
        elif FUSED.search(name):
            total += weight.shape[0] * 2 // 3
    return total


def grid_tokens(model: nn.Module, batch: ProbeBatch) -> Tensor:
    """(B, N, D), the encoder's own tokens. Raises: ProxyError where the model does not hand them out."""
    if batch.vision_features is not None:
        return batch.vision_features
    if not hasattr(model, "vision_tokens"):
        raise ProxyError("this proxy needs the encoder's tokens, but the model has no vision_tokens()")
    tokens: Tensor = model.vision_tokens(batch.pixel_values)  # type: ignore[operator]
    return tokens
