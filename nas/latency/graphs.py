"""ONNX graphs of a candidate's parts: encoder, connector, and the decoder with its KV cache."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from nas.model.language import head_width
from nas.model.project import connect

OPSET = 20


class Decoder(nn.Module):
    """The decoder as a function of tensors: embeddings and past keys and values in, logits of the last token out."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, embedded: Tensor, positions: Tensor, mask: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """embedded: (B, T, H); positions: (B, T); mask: (B, 1, T, P + T), additive; past: keys, values (B, K, P, d)."""
        pairs = [(past[index], past[index + 1]) for index in range(0, len(past), 2)]
        cache = DynamicCache(pairs, config=self.model.config)
        found = self.model(
            inputs_embeds=embedded, position_ids=positions, attention_mask=mask, past_key_values=cache,
            use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        present: list[Tensor] = []
        layers: Any = cache.layers
        for layer in layers:
            present += [layer.keys, layer.values]
        return (found.logits, *present)


def decoder_graph(model: PreTrainedModel) -> onnx.ModelProto:
    """One graph for prefill (P = 0) and decode (T = 1); batch, T and P are free."""
    config: Any = model.config
    layers, kv_heads = config.num_hidden_layers, config.num_key_value_heads
    width = head_width(config)
    tokens, past = 3, 5
    arguments = [
        torch.zeros(2, tokens, config.hidden_size),
        torch.arange(past, past + tokens).expand(2, -1),
        torch.zeros(2, 1, tokens, past + tokens),
        *[torch.zeros(2, kv_heads, past, width) for _ in range(2 * layers)],
    ]
    inputs = ["embedded", "positions", "mask", *cache_names("past", layers)]
    batch, free = {0: torch.export.Dim("batch")}, torch.export.Dim("tokens")
    shapes = (
        batch | {1: free}, batch | {1: free}, batch | {2: free, 3: torch.export.Dim.DYNAMIC},
        tuple(batch | {2: torch.export.Dim("past")} for _ in range(2 * layers)),
    )  # fmt: skip
    return _export(
        Decoder(model), arguments, inputs, ["logits", *cache_names("present", layers)], shapes,
    )  # fmt: skip


def cache_names(state: str, layers: int) -> list[str]:
    """Names of the graph's keys and values, `past` or `present`, in order."""
    return [f"{state}.{kind}.{index}" for index in range(layers) for kind in ("keys", "values")]


class _Vision(nn.Module):
    """What `MultimodalLM.encode_images` does, without the language model."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision, self.frames = model.vision, model.frames
        self.compressor, self.projector, self.count = model.compressor, model.projector, model.set_tokens

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, R, R) or (B, V, 3, R, R) -> (B, M, H)."""
        return connect(self.vision(pixel_values), self.count, self.frames, self.compressor, self.projector)


def vision_part(model: Any) -> nn.Module:
    """Encoder, compression and projector of a MultimodalLM as one module, (B, 3, R, R) -> (B, M, H)."""
    return _Vision(model)


def graph(module: nn.Module, example: Tensor, name: str, out: str) -> onnx.ModelProto:
    """A module of one tensor to one tensor, at the example's shape."""
    return _export(module, [example], [name], [out], None)


def _export(
    module: nn.Module, arguments: Sequence[Tensor], inputs: list[str], outputs: list[str], shapes: Any
) -> onnx.ModelProto:
    with _silence(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(), tuple(arguments), None, input_names=inputs, output_names=outputs, dynamic_shapes=shapes,
            opset_version=OPSET, dynamo=True, verbose=False,
        )  # fmt: skip
        assert program is not None
        return program.model_proto


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The exporter prints its progress and warns of its own internals."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def mask_for(tokens: int, past: int, batch: int) -> Tensor:
    """(B, 1, T, P + T): 0 where a token may look, the lowest number where it may not."""
    allowed = torch.ones(tokens, past + tokens, dtype=torch.bool).tril(past)
    mask = torch.zeros(tokens, past + tokens).masked_fill(~allowed, torch.finfo(torch.float32).min)
    return mask.expand(batch, 1, tokens, past + tokens).contiguous()
