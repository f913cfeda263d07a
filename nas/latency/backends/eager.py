"""torch in eager mode: the modules as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from nas.latency.blocks import BlockSpec
from nas.latency.jobs import Job, JobFactory, kept_state, nothing
from nas.model import MultimodalLM
from nas.model.narrow_cache import empty_cache


class EagerStages:
    """The stages of `nas.latency.backends.Stages` on the model itself."""

    def __init__(self, model: MultimodalLM) -> None:
        self.model = model
        self.cache: DynamicCache = self._empty()
        self.restore: Callable[[], object] = nothing
        self.past = 0

    def vision(self, pixels: Tensor) -> Tensor:
        return self.model.vision_tokens(pixels)

    def projector(self, tokens: Tensor) -> Tensor:
        return self.model.project_tokens(tokens)

    def begin(self, batch: int, past: int) -> None:
        if past and past == self.past:
            self.restore()
            return
        self.cache, self.past = self._empty(), past
        if past:
            self._run(torch.randn(batch, past, self.model.language_spec.hidden), None)
            self.restore = kept_state(self.cache)

    def prefill(self, ids: Tensor, visual: Tensor) -> Tensor:
        if self.model.fastv is not None:
            self.model.fastv.mark(ids == self.model.language_spec.image_token_id, visual.shape[1])
        return self._run(self.model.embed(ids, visual), visual)

    def step(self, newest: Tensor) -> Tensor:
        if self.model.fastv is not None:
            self.model.fastv.mark(None)
        return self._run(self.model.embed(newest, None), None)

    def _run(self, embedded: Tensor, visual: Tensor | None) -> Tensor:
        """(B, T, H) -> newest ids (B, 1)."""
        rest: dict[str, Any] = {"past_key_values": self.cache, "use_cache": True, "logits_to_keep": 1}
        with self.model.seeing(visual, self.cache):
            logits: Any = self.model.run_decoder(embedded, None, None, rest).logits
        newest: Tensor = logits[:, -1:].argmax(-1)
        return newest

    def _empty(self) -> DynamicCache:
        return empty_cache(self.model.language_model.config, self.model.candidate.kv_cache)

    def kv_bytes(self) -> int:
        layers: list[Any] = self.cache.layers
        pairs = [(layer.keys, layer.values) for layer in layers if getattr(layer, "keys", None) is not None]
        pairs += getattr(self.cache, "visual", [])  # of gated cross-attention
        return sum(int(keys.nbytes + values.nbytes) for keys, values in pairs)


class EagerBackend:
    """The modules of a block or a candidate, called as they are."""

    def __init__(self) -> None:
        self.factory = JobFactory()

    def job(self, block: BlockSpec) -> Job:
        return self.factory.job(block)

    def load(self, model: MultimodalLM) -> EagerStages:
        return EagerStages(model)
