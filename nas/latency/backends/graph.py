"""What runtimes that compile whole graphs share: encoder, connector and decoder as ONNX, fed and timed alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Protocol

import torch
from onnx import ModelProto
from torch import Tensor, nn

from nas.latency.blocks import BlockSpec
from nas.latency.graphs import cache_names, decoder_graph, graph, mask_for, vision_part
from nas.latency.jobs import Axes, Job, JobFactory, causal_lm, embedded_prompt, preprocessing
from nas.latency.junctions import connector, cut_encoder
from nas.model import MultimodalLM

Value = Any  # a tensor in the runtime's own form: keys and values stay there from step to step
Run = Callable[[Mapping[str, Any]], list[Value]]


class Runtime(Protocol):
    """What a runtime does with a graph."""

    def compiled(self, model: ModelProto) -> Run:
        """The graph, callable."""

    def read(self, value: Value) -> Tensor:
        """One of the runtime's values as a tensor of torch."""


class Decoder:
    """A decoder's graph with its KV cache. The embedding table is looked up outside, as part of each call."""

    def __init__(self, runtime: Runtime, run: Run, layers: int, kv_heads: int, head_dim: int) -> None:
        self.runtime, self.run = runtime, run
        self.names = cache_names("past", layers)
        self.empty = (kv_heads, head_dim)
        self.past: Sequence[Value] = []
        self.length = 0

    def start(self, batch: int) -> None:
        """An empty cache."""
        kv_heads, head_dim = self.empty
        self.past = [torch.zeros(batch, kv_heads, 0, head_dim).numpy()] * len(self.names)
        self.length = 0

    def __call__(self, embedded: Tensor) -> Tensor:
        """(B, T, H) -> logits of the last token (B, 1, V); the cache grows by T."""
        batch, tokens = embedded.shape[:2]
        positions = torch.arange(self.length, self.length + tokens).expand(batch, -1).contiguous()
        inputs: dict[str, Any] = {
            "embedded": embedded.numpy(),
            "positions": positions.numpy(),
            "mask": mask_for(tokens, self.length, batch).numpy(),
            **dict(zip(self.names, self.past, strict=True)),
        }
        logits, *self.past = self.run(inputs)
        self.length += tokens
        return self.runtime.read(logits)


class GraphStages:
    """The stages of a candidate: encoder and connector in one graph, the decoder in another."""

    def __init__(self, runtime: Runtime, model: MultimodalLM) -> None:
        resolution = model.candidate.resolution
        self.runtime, self.model = runtime, model
        example = torch.zeros(1, 3, resolution, resolution)
        self.images = runtime.compiled(graph(vision_part(model), example, "pixels", "visual"))
        self.decoder = decoder(runtime, model.language_model)
        self.held: tuple[Sequence[Value], int] = ([], 0)

    def vision(self, pixels: Tensor) -> Tensor:
        """Encoded and projected, one picture at a time."""
        pixels = pixels.flatten(0, 1) if pixels.ndim == 5 else pixels
        found = [self.runtime.read(self.images({"pixels": image.numpy()})[0]) for image in torch.split(pixels, 1)]
        return torch.cat(found) if len(found) > 1 else found[0]

    def projector(self, tokens: Tensor) -> Tensor:
        return tokens

    def begin(self, batch: int, past: int) -> None:
        if past and past == self.held[1]:
            self.decoder.past, self.decoder.length = self.held
            return
        self.decoder.start(batch)
        if past:
            self.decoder(torch.randn(batch, past, self.model.language_spec.hidden))
        self.held = (self.decoder.past, self.decoder.length)

    def prefill(self, ids: Tensor, visual: Tensor) -> Tensor:
        return self.decoder(self.model.embed(ids, visual)).argmax(-1)

    def step(self, newest: Tensor) -> Tensor:
        return self.decoder(self.model.embed(newest, None)).argmax(-1)

    def kv_bytes(self) -> int:
        return sum(self.runtime.read(value).nbytes for value in self.decoder.past)


class GraphBackend:
    """Blocks as graphs of their own; decoders whole, at the depths that the blocks name."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.eager = JobFactory()
        self._decoder = cache(self._build_decoder)

    def job(self, block: BlockSpec) -> Job:
        makers = {
            "preprocess": self.eager.job,
            "vision": self._vision_job,
            "projector": self._projector_job,
            "decoder_prefill": self._prefill_job,
            "decoder_decode": self._decode_job,
        }
        return makers[block.kind](block)

    def load(self, model: MultimodalLM) -> GraphStages:
        return GraphStages(self.runtime, model)

    def _vision_job(self, block: BlockSpec) -> Job:
        return self._module_job(block, cut_encoder(block), preprocessing(replace(block, batch=1))())

    def _projector_job(self, block: BlockSpec) -> Job:
        module, tokens = connector(block)
        return self._module_job(block, module, tokens[:1])

    def _module_job(self, block: BlockSpec, module: nn.Module, example: Tensor) -> Job:
        run = self.runtime.compiled(graph(module, example, "input", "output"))
        inputs = {"input": example.numpy()}

        def every_image() -> None:
            for _ in range(block.batch):
                run(inputs)

        return Job(block, every_image)

    def _build_decoder(self, lm: str, depth: int, axes: Axes) -> tuple[nn.Module, Decoder]:
        model = causal_lm(lm, depth, axes)
        return model.get_input_embeddings(), decoder(self.runtime, model)

    def _prefill_job(self, block: BlockSpec) -> Job:
        embedding, found = self._decoder(block.lm, block.depth, block.axes)
        prompt = embedded_prompt(block, embedding)
        past, length = self._filled(block, block.past)

        def run() -> Tensor:
            found.past, found.length = past, length
            return found(prompt()).argmax(-1)

        return Job(block, run)

    def _decode_job(self, block: BlockSpec) -> Job:
        """A step at the true context and the one after it, in turns: as in a request, shapes are never those before."""
        embedding, found = self._decoder(block.lm, block.depth, block.axes)
        newest = torch.full((block.batch, 1), 5)
        filled = before = self._filled(block, block.length)

        def run() -> Tensor:
            found.past, found.length = before
            return found(embedding(newest)).argmax(-1)

        def restore() -> None:
            nonlocal before
            before = filled if found.length > block.length + 1 else (found.past, found.length)

        return Job(block, run, restore)

    def _filled(self, block: BlockSpec, length: int) -> tuple[Sequence[Value], int]:
        """What the cache holds after so many positions."""
        embedding, found = self._decoder(block.lm, block.depth, block.axes)
        found.start(block.batch)
        if length:
            found(embedding(torch.full((block.batch, length), 5)))
        return found.past, found.length


def decoder(runtime: Runtime, model: Any) -> Decoder:
    """A transformers decoder in a runtime."""
    config = model.config
    run = runtime.compiled(decoder_graph(model))
    return Decoder(runtime, run, config.num_hidden_layers, config.num_key_value_heads, config.head_dim)
