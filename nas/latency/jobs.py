"""One timed job a block: the real modules with random weights, in the state they are in during a request."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from nas.latency.blocks import BlockSpec
from nas.model.language import llama_config
from nas.model.processor import preprocess
from nas.model.project import build_connector
from nas.model.vision import VisionEncoder
from search_spaces import catalogue

MOST_COPIES = 12  # bounds memory when layers are far smaller than the last-level cache
PHOTO_SIZE = (640, 480)  # a typical picture that preprocessing shrinks
Prepare = Callable[[nn.Module], nn.Module]


def nothing() -> None:
    """Sets up no state."""


@dataclass(frozen=True, slots=True)
class Job:
    """`run` is timed; `before` and `restore` set the state up and back outside the timed region."""

    block: BlockSpec
    run: Callable[[], object]
    restore: Callable[[], object] = nothing
    before: Callable[[], object] = nothing


class JobFactory:
    """Builds jobs that share modules: one decoder stack serves every length of a language model.

    `prepare` is applied to encoder and connector, `prepare_layer` to each decoder layer (e.g. to compile them).
    """

    def __init__(
        self,
        last_level_cache_bytes: float,
        prepare: Prepare = lambda module: module,
        prepare_layer: Prepare = lambda module: module,
    ) -> None:
        self.cache_bytes = last_level_cache_bytes
        self.prepare, self.prepare_layer = prepare, prepare_layer
        self._decoder = cache(self._build_decoder)
        self._shell = cache(lambda lm: causal_lm(lm, 0))
        self._flushed = torch.empty(0)

    def job(self, block: BlockSpec) -> Job:
        """The job of any block that runs layer by layer."""
        makers: dict[str, Callable[[BlockSpec], Job]] = {
            "preprocess": self._preprocess_job,
            "vision": self._vision_job,
            "projector": self._projector_job,
            "shell_prefill": self._shell_prefill_job,
            "shell_decode": self._shell_decode_job,
            "layer_prefill": self._layer_prefill_job,
            "layer_decode": self._layer_decode_job,
        }
        return makers[block.kind](block)

    def flush(self) -> None:
        """Empties the last-level cache: what runs once a request finds its weights in memory."""
        if not len(self._flushed):
            self._flushed = torch.zeros(int(self.cache_bytes) // 2)  # 2 x the cache in float32
        self._flushed.add_(1)

    def _build_decoder(self, lm: str) -> LlamaForCausalLM:
        """K distinct layers, 4 x the last-level cache together, so that each call finds its weights in memory."""
        layer_bytes = 4 * sum(weight.numel() for weight in causal_lm(lm, 1).model.layers.parameters())
        copies = min(MOST_COPIES, max(1, math.ceil(4 * self.cache_bytes / layer_bytes)))
        decoder = causal_lm(lm, copies)
        for index, layer in enumerate(decoder.model.layers):
            decoder.model.layers[index] = self.prepare_layer(layer)
        return decoder

    def _shell_prefill_job(self, block: BlockSpec) -> Job:
        """Embedding, visual tokens put in place, rotary table, mask, last norm, vocabulary head and argmax."""
        model = self._shell(block.lm)
        ids = torch.full((block.batch, block.length), 4)
        places = torch.arange(block.length).unsqueeze(0).expand(block.batch, -1) < block.length // 2
        visual = torch.randn(block.batch * (block.length // 2), model.config.hidden_size)

        def run() -> object:
            embedded = model.get_input_embeddings()(ids)
            embedded = embedded.masked_scatter(places.unsqueeze(-1).expand_as(embedded), visual)
            logits = model(inputs_embeds=embedded, use_cache=True, logits_to_keep=1).logits
            return logits[:, -1:].argmax(-1)

        return Job(block, run)

    def _shell_decode_job(self, block: BlockSpec) -> Job:
        """The same for one token."""
        model = self._shell(block.lm)
        newest = torch.full((block.batch, 1), 5)
        return Job(block, lambda: model(input_ids=newest, use_cache=True).logits[:, -1:].argmax(-1))

    def _layer_prefill_job(self, block: BlockSpec) -> Job:
        model = self._decoder(block.lm).model
        hidden = torch.randn(block.batch, block.length, model.config.hidden_size)
        inputs = _positions(model, hidden, 0)
        turn = iter(_endless(len(model.layers)))
        state = {"cache": DynamicCache(config=model.config)}

        def restore() -> None:
            state["cache"] = DynamicCache(config=model.config)

        def run() -> object:
            return model.layers[next(turn)](hidden, past_key_values=state["cache"], **inputs)

        return Job(block, run, restore)

    def _layer_decode_job(self, block: BlockSpec) -> Job:
        """One new token against a cache of the true context, which is cropped back after each call."""
        model = self._decoder(block.lm).model
        filled = DynamicCache(config=model.config)
        prompt = torch.randn(block.batch, block.length, model.config.hidden_size)
        inputs = _positions(model, prompt, 0)
        for layer in model.layers:
            prompt = layer(prompt, past_key_values=filled, **inputs)
        hidden = torch.randn(block.batch, 1, model.config.hidden_size)
        inputs = _positions(model, hidden, block.length)
        turn = iter(_endless(len(model.layers)))
        grown: list[int] = []

        def run() -> object:
            grown.append(next(turn))
            return model.layers[grown[-1]](hidden, past_key_values=filled, **inputs)

        def restore() -> None:
            while grown:
                layer = filled.layers[grown.pop()]
                layer.crop(-1)  # type: ignore[union-attr]

        return Job(block, run, restore)

    def _preprocess_job(self, block: BlockSpec) -> Job:
        photos = [photo()] * block.batch
        return Job(block, lambda: preprocess(photos, block.resolution, [0.5] * 3, [0.5] * 3), before=self.flush)

    def _vision_job(self, block: BlockSpec) -> Job:
        encoder = self.prepare(VisionEncoder(catalogue.encoder(block.encoder), block.resolution).eval())
        pixels = torch.randn(block.batch, 3, block.resolution, block.resolution)
        return Job(block, lambda: encoder(pixels))

    def _projector_job(self, block: BlockSpec) -> Job:
        spec, hidden = catalogue.encoder(block.encoder), catalogue.language_model(block.lm).hidden
        parts = build_connector(block.projector, block.compression, block.compression_factor, spec.width, hidden)
        module = self.prepare(nn.Sequential(*parts).eval())
        tokens = torch.randn(block.batch, spec.tokens(block.resolution), spec.width)
        return Job(block, lambda: module(tokens), before=lambda: self._refill(tokens))

    def _refill(self, inputs: Tensor) -> None:
        """Weights in memory, inputs in the cache: what the part before has just written."""
        self.flush()
        inputs.mul_(1)


def photo() -> Any:
    """A picture of a camera's size."""
    from PIL import Image

    return Image.effect_noise(PHOTO_SIZE, 64).convert("RGB")


def _endless(count: int) -> Iterator[int]:
    while True:
        yield from range(count)


def _positions(model: Any, hidden: Tensor, start: int) -> dict[str, Any]:
    positions = torch.arange(start, start + hidden.shape[1]).unsqueeze(0)
    return {"position_ids": positions, "position_embeddings": model.rotary_emb(hidden, positions)}


def causal_lm(lm: str, layers: int) -> LlamaForCausalLM:
    """A language model of the catalogue's shape with random weights."""
    config = LlamaConfig(**llama_config(catalogue.language_model(lm), layers))
    return LlamaForCausalLM._from_config(config, attn_implementation="sdpa").eval()  # type: ignore[no-any-return, no-untyped-call]
