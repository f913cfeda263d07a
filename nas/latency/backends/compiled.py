"""torch.compile: encoder, connector and each decoder layer compiled; all layers of a decoder share one compilation."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from nas.latency.backends.eager import EagerStages
from nas.latency.blocks import BlockSpec
from nas.latency.jobs import Job, JobFactory
from nas.model import MultimodalLM

MOST_RECOMPILES = 64  # of one piece of code: prefill and decode of every layer's shape


def prepare(module: nn.Module, dynamic: bool | None = None) -> nn.Module:
    """Compiles at the first call. `dynamic` shapes: a growing cache is no reason to compile again."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_RECOMPILES)
    module.compile(dynamic=dynamic)
    return module


class CompiledBackend:
    """Blocks and stages of eager mode, compiled."""

    def __init__(self) -> None:
        self.factory = JobFactory(prepare, partial(prepare, dynamic=True))

    def job(self, block: BlockSpec) -> Job:
        return self.factory.job(block)

    def load(self, model: MultimodalLM) -> EagerStages:
        parts: Any = model
        parts.vision = prepare(parts.vision)
        parts.compressor, parts.projector = prepare(parts.compressor), prepare(parts.projector)
        for layer in parts.decoder.layers:
            prepare(layer, dynamic=True)
        return EagerStages(model)
