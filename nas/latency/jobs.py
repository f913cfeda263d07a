"""One timed job a block: the real modules with random weights, in the state they are in during a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from nas.depth import kept_layers
from nas.latency.blocks import BlockSpec
from nas.model.language import build_language_model
from nas.model.processor import preprocess
from nas.model.project import build_connector
from nas.model.vision import VisionEncoder
from search_spaces import catalogue

PHOTO_SIZE = (640, 480)  # a typical picture that preprocessing shrinks
Prepare = Callable[[nn.Module], nn.Module]


def nothing() -> None:
    """Sets up no state."""


@dataclass(frozen=True, slots=True)
class Job:
    """`run` is timed; `restore` sets the state back outside the timed region."""

    block: BlockSpec
    run: Callable[[], object]
    restore: Callable[[], object] = nothing


class JobFactory:
    """Builds jobs that share modules: one decoder stack serves every length of a language model.

    `prepare` is applied to encoder and connector, `prepare_layer` to each decoder layer (e.g. to compile them).
    """

    def __init__(
        self,
        prepare: Prepare = lambda module: module,
        prepare_layer: Prepare = lambda module: module,
    ) -> None:
        self.prepare, self.prepare_layer = prepare, prepare_layer
        self._decoder = cache(self._build_decoder)

    def job(self, block: BlockSpec) -> Job:
        """The job of any block that runs layer by layer."""
        makers: dict[str, Callable[[BlockSpec], Job]] = {
            "preprocess": self._preprocess_job,
            "vision": self._vision_job,
            "projector": self._projector_job,
            "decoder_prefill": self._prefill_job,
            "decoder_decode": self._decode_job,
        }
        return makers[block.kind](block)

    def _build_decoder(self, lm: str, depth: int) -> PreTrainedModel:
        decoder = causal_lm(lm, depth)
        for index, layer in enumerate(decoder.model.layers):
            decoder.model.layers[index] = self.prepare_layer(layer)
        return decoder

    def _prefill_job(self, block: BlockSpec) -> Job:
        """Embedding, visual tokens put in place, the layers, last norm, vocabulary head and argmax."""
        model = self._decoder(block.lm, block.depth)
        ids = torch.full((block.batch, block.length), 4)
        places = torch.arange(block.length).unsqueeze(0).expand(block.batch, -1) < block.length // 2
        visual = torch.randn(block.batch * (block.length // 2), model.config.hidden_size)

        def run() -> object:
            embedded = model.get_input_embeddings()(ids)
            embedded = embedded.masked_scatter(places.unsqueeze(-1).expand_as(embedded), visual)
            cache = DynamicCache(config=model.config)
            found = model(inputs_embeds=embedded, past_key_values=cache, use_cache=True, logits_to_keep=1)
            return found.logits[:, -1:].argmax(-1)

        return Job(block, run)

    def _decode_job(self, block: BlockSpec) -> Job:
        """One new token against a cache of the true context, which is cropped back after each call."""
        model = self._decoder(block.lm, block.depth)
        filled = DynamicCache(config=model.config)
        prompt = torch.randn(block.batch, block.length, model.config.hidden_size)
        model(inputs_embeds=prompt, past_key_values=filled, use_cache=True, logits_to_keep=1)
        newest = torch.full((block.batch, 1), 5)

        def run() -> object:
            return model(input_ids=newest, past_key_values=filled, use_cache=True).logits[:, -1:].argmax(-1)

        return Job(block, run, lambda: filled.crop(-1))

    def _preprocess_job(self, block: BlockSpec) -> Job:
        return Job(block, preprocessing(block))

    def _vision_job(self, block: BlockSpec) -> Job:
        """On the very pixels that preprocessing leaves: their colours lie innermost in memory.

        Convolutional encoders took 25 % longer on pixels of the same shape whose colours lay outermost.
        """
        encoder = self.prepare(VisionEncoder(catalogue.encoder(block.encoder), block.resolution).eval())
        pixels = preprocessing(block)()
        return Job(block, lambda: encoder(pixels))

    def _projector_job(self, block: BlockSpec) -> Job:
        spec, hidden = catalogue.encoder(block.encoder), catalogue.language_model(block.lm).hidden
        parts = build_connector(
            block.projector,
            block.compression,
            block.compression_factor,
            spec.width,
            hidden,
            spec.grid_side(block.resolution),
        )
        module = self.prepare(nn.Sequential(*parts).eval())
        tokens = torch.randn(block.batch, spec.tokens(block.resolution), spec.width)
        return Job(block, lambda: module(tokens))


def preprocessing(block: BlockSpec) -> Callable[[], Tensor]:
    """Photos of a request into pixels (B, 3, R, R)."""
    photos = [photo()] * block.batch
    return lambda: preprocess(photos, block.resolution, [0.5] * 3, [0.5] * 3)


def photo() -> Any:
    """A picture of a camera's size."""
    from PIL import Image

    return Image.effect_noise(PHOTO_SIZE, 64).convert("RGB")


def causal_lm(lm: str, layers: int) -> PreTrainedModel:
    """A language model of the catalogue's shape with random weights; deeper than published, its layers come again."""
    spec = catalogue.language_model(lm)
    kept = kept_layers("uniform", spec, layers) if 0 < layers <= spec.layers else range(layers)
    model = build_language_model(spec, [index % spec.layers for index in kept], "sdpa")
    model.train(False)
    return model
