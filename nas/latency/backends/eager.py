"""torch in eager mode: the modules as they are."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache

from nas.latency.blocks import BlockSpec
from nas.latency.jobs import Job, JobFactory
from nas.model import MultimodalLM


class EagerStages:
    """The stages of `nas.latency.backends.Stages` on the model itself."""

    def __init__(self, model: MultimodalLM) -> None:
        self.model = model
        self.cache: DynamicCache | None = None

    def vision(self, pixels: Tensor) -> Tensor:
        return self.model.vision_tokens(pixels)

    def projector(self, tokens: Tensor) -> Tensor:
        return self.model.project_tokens(tokens)

    def prefill(self, ids: Tensor, visual: Tensor) -> Tensor:
        decoder = self.model.language_model
        self.cache = DynamicCache(config=decoder.config)
        embedded = self.model.embed(ids, visual)
        logits = decoder(inputs_embeds=embedded, past_key_values=self.cache, use_cache=True, logits_to_keep=1).logits
        newest: Tensor = logits[:, -1:].argmax(-1)
        return newest

    def step(self, newest: Tensor) -> Tensor:
        logits = self.model.language_model(input_ids=newest, past_key_values=self.cache, use_cache=True).logits
        following: Tensor = logits[:, -1:].argmax(-1)
        return following

    def kv_bytes(self) -> int:
        layers: list[Any] = [] if self.cache is None else self.cache.layers
        return sum(int(layer.keys.nbytes + layer.values.nbytes) for layer in layers)


class EagerBackend:
    """The modules of a block or a candidate, called as they are."""

    def __init__(self) -> None:
        self.factory = JobFactory()

    def job(self, block: BlockSpec) -> Job:
        return self.factory.job(block)

    def load(self, model: MultimodalLM) -> EagerStages:
        return EagerStages(model)
