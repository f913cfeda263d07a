"""One timed job a block: the real modules with random weights, in the state they are in during a request."""

from __future__ import annotations

import math
from collections.abc import Callable
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


@dataclass(frozen=True, slots=True)
class Job:
    """`run` is timed; `restore` puts the state back outside the timed region."""

    block: BlockSpec
    run: Callable[[], object]
    restore: Callable[[], object] = lambda: None


class JobFactory:
    """Builds jobs that share modules: one decoder stack serves every length of a language model."""

    def __init__(self, last_level_cache_bytes: float) -> None:
        self.cache_bytes = last_level_cache_bytes
        self._decoder = cache(self._build_decoder)
        self._shell = cache(lambda lm: _causal_lm(lm, 0))

    def job(self, block: BlockSpec) -> Job:
        """The job of any block."""
        makers: dict[str, Callable[[BlockSpec], Job]] = {
            "preprocess": _preprocess_job,
            "vision": _vision_job,
            "projector": _projector_job,
            "shell_prefill": self._shell_job,
            "shell_decode": self._shell_job,
            "layer_prefill": self._layer_prefill_job,
            "layer_decode": self._layer_decode_job,
        }
        return makers[block.kind](block)

    def _build_decoder(self, lm: str) -> LlamaForCausalLM:
        """K distinct layers, 4 x the last-level cache together, so that each call finds its weights in memory."""
        layer_bytes = 4 * sum(weight.numel() for weight in _causal_lm(lm, 1).model.layers.parameters())
        copies = min(MOST_COPIES, max(1, math.ceil(4 * self.cache_bytes / layer_bytes)))
        return _causal_lm(lm, copies)

    def _shell_job(self, block: BlockSpec) -> Job:
        """Rotary table, mask, last norm and vocabulary head: the model without layers."""
        model = self._shell(block.lm)
        tokens = block.length if block.kind == "shell_prefill" else 1
        embedded = torch.randn(block.batch, tokens, model.config.hidden_size)
        return Job(block, lambda: model(inputs_embeds=embedded, use_cache=True, logits_to_keep=1))

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
        model(inputs_embeds=prompt, past_key_values=filled, use_cache=True)
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


def _endless(count: int) -> Any:
    while True:
        yield from range(count)


def _positions(model: Any, hidden: Tensor, start: int) -> dict[str, Any]:
    positions = torch.arange(start, start + hidden.shape[1]).unsqueeze(0)
    return {"position_ids": positions, "position_embeddings": model.rotary_emb(hidden, positions)}


def _causal_lm(lm: str, layers: int) -> LlamaForCausalLM:
    config = LlamaConfig(**llama_config(catalogue.language_model(lm), layers))
    return LlamaForCausalLM._from_config(config, attn_implementation="sdpa").eval()  # type: ignore[no-any-return, no-untyped-call]


def _preprocess_job(block: BlockSpec) -> Job:
    from PIL import Image

    photo = Image.effect_noise(PHOTO_SIZE, 64).convert("RGB")
    photos = [photo] * block.batch
    return Job(block, lambda: preprocess(photos, block.resolution, [0.5] * 3, [0.5] * 3))


def _vision_job(block: BlockSpec) -> Job:
    encoder = VisionEncoder(catalogue.encoder(block.encoder), block.resolution).eval()
    pixels = torch.randn(block.batch, 3, block.resolution, block.resolution)
    return Job(block, lambda: encoder(pixels))


def _projector_job(block: BlockSpec) -> Job:
    spec, hidden = catalogue.encoder(block.encoder), catalogue.language_model(block.lm).hidden
    parts = build_connector(block.projector, block.compression, block.compression_factor, spec.width, hidden)
    module = nn.Sequential(*parts).eval()
    tokens = torch.randn(block.batch, spec.tokens(block.resolution), spec.width)
    return Job(block, lambda: module(tokens))
