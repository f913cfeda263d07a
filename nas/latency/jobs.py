"""One timed job a block: the real modules with random weights, in the state they are in during a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.initialization import no_init_weights

from nas.cost_vision import FRAMES_PER_S
from nas.depth import kept_layers
from nas.latency import junctions
from nas.latency.blocks import BlockSpec
from nas.model.language import build_language_model, cache_argument
from nas.model.narrow_cache import StateCache, empty_cache
from nas.model.processor import tiled_pixels
from nas.model.quantised import quantise
from nas.model.sound import log_mel, noise
from search_spaces import catalogue

RANDOM_NUMBERS, WEIGHT_SCALE = 2**16 + 1, 0.02  # odd, so that no two rows of a matrix are alike
PHOTO_SIZE = (640, 480)  # a typical picture that preprocessing shrinks
MOST_DECODERS, MOST_DECODER_BYTES = 8, 3 * 2**30  # kept in memory beside those that jobs hold
Prepare = Callable[[nn.Module], nn.Module]
Axes = tuple[tuple[str, str | int], ...]


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
        self._decoders: dict[tuple[str, int, Axes], PreTrainedModel] = {}

    def job(self, block: BlockSpec) -> Job:
        """The job of any block that runs layer by layer."""
        makers: dict[str, Callable[[BlockSpec], Job]] = {
            "preprocess": self._preprocess_job,
            "vision": self._vision_job,
            "projector": self._projector_job,
            "decoder_prefill": self._prefill_job,
            "decoder_decode": self._decode_job,
            "join": lambda block: Job(block, junctions.join(block)),
            "prune": lambda block: Job(block, junctions.prune(block)),
            "fastv": lambda block: Job(block, junctions.fastv(block, causal_lm(block.lm, 2, block.axes))),
            "cross_prefill": lambda block: Job(block, junctions.crossing(block)),
            "cross_decode": lambda block: Job(block, junctions.crossing(block)),
        }
        return makers[block.kind](block)

    def _decoder(self, lm: str, depth: int, axes: Axes) -> PreTrainedModel:
        """Made once, and kept for as long as there is room; what was asked for longest ago goes first."""
        kept, key = self._decoders, (lm, depth, axes)
        found = kept.pop(key, None) or self._build_decoder(lm, depth, axes)
        kept[key] = found
        while len(kept) > 1 and (len(kept) > MOST_DECODERS or sum(map(_bytes, kept.values())) > MOST_DECODER_BYTES):
            del kept[next(iter(kept))]
        return found

    def _build_decoder(self, lm: str, depth: int, axes: Axes) -> PreTrainedModel:
        decoder = causal_lm(lm, depth, axes)
        layers: Any = decoder.base_model.layers
        for index, layer in enumerate(layers):
            layers[index] = self.prepare_layer(layer)
        return decoder

    def _prefill_job(self, block: BlockSpec) -> Job:
        """Embedding, visual tokens put in place, the layers, last norm, vocabulary head and argmax.

        On an empty cache, or on one that holds the positions of earlier turns.
        """
        model = self._decoder(block.lm, block.depth, block.axes)
        prompt = embedded_prompt(block, model.get_input_embeddings())
        filled, restore = (None, nothing) if not block.past else self._filled(model, block, block.past)

        def run() -> object:
            cache = _empty(model, block) if filled is None else filled
            return decode(model, cache, inputs_embeds=prompt()).argmax(-1)

        return Job(block, run, restore)

    def _decode_job(self, block: BlockSpec) -> Job:
        """One new token against a cache of the true context, which is set back after each call."""
        model = self._decoder(block.lm, block.depth, block.axes)
        filled, restore = self._filled(model, block, block.length)
        newest = torch.full((block.batch, 1), 5)
        return Job(block, lambda: decode(model, filled, input_ids=newest).argmax(-1), restore)

    def _filled(self, model: PreTrainedModel, block: BlockSpec, length: int) -> tuple[DynamicCache, Callable[[], None]]:
        """A cache of so many positions, and what sets it back to them."""
        filled = _empty(model, block)
        decode(model, filled, inputs_embeds=torch.randn(block.batch, length, model.config.hidden_size))
        return filled, kept_state(filled)

    def _preprocess_job(self, block: BlockSpec) -> Job:
        return Job(block, preprocessing(block))

    def _vision_job(self, block: BlockSpec) -> Job:
        """On the very pixels (or spectrograms) that preprocessing leaves: their colours lie innermost in memory.

        Convolutional encoders took 25 % longer on pixels of the same shape whose colours lay outermost.
        """
        encoder = self.prepare(junctions.cut_encoder(block))
        mels = catalogue.encoder(block.encoder).mels
        pixels = preprocessing(replace(block, axes=(("mels", mels),) if mels else ()))()
        return Job(block, lambda: encoder(pixels))

    def _projector_job(self, block: BlockSpec) -> Job:
        part, tokens = junctions.connector(block)
        module = self.prepare(part)
        return Job(block, lambda: module(tokens))


def _fill(model: PreTrainedModel) -> None:
    """Some random numbers over and over: to draw every weight takes fifty times as long, and speed knows no values."""
    numbers = WEIGHT_SCALE * torch.randn(RANDOM_NUMBERS)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(numbers.repeat(weight.numel() // RANDOM_NUMBERS + 1)[: weight.numel()].view_as(weight))


def _bytes(model: PreTrainedModel) -> int:
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def preprocessing(block: BlockSpec) -> Callable[[], Tensor]:
    """Photos of a request into pixels (B, 3, R, R), or windows of sound into spectrograms (B, mels, R)."""
    axes = dict(block.axes)
    if "mels" in axes:
        windows = [noise(block.resolution / FRAMES_PER_S)] * block.batch
        return lambda: log_mel(windows, block.resolution, int(axes["mels"]))
    photos = [photo()] * block.batch
    return lambda: tiled_pixels(
        photos, block.resolution, [0.5] * 3, [0.5] * 3, str(axes.get("tiling", "none")), int(axes.get("tiles", 1))
    )


def photo() -> Any:
    """A picture of a camera's size."""
    from PIL import Image

    return Image.effect_noise(PHOTO_SIZE, 64).convert("RGB")


def embedded_prompt(block: BlockSpec, embedding: nn.Module) -> Callable[[], Tensor]:
    """Text looked up, visual tokens put in the places of its first half: (B, T, H)."""
    ids = torch.full((block.batch, block.length), 4)
    places = torch.arange(block.length).unsqueeze(0).expand(block.batch, -1) < block.length // 2
    width = embedding(ids[:1, :1]).shape[-1]
    visual = torch.randn(block.batch * (block.length // 2), width)

    def prompt() -> Tensor:
        embedded: Tensor = embedding(ids)
        return embedded.masked_scatter(places.unsqueeze(-1).expand_as(embedded), visual)

    return prompt


def causal_lm(lm: str, layers: int, axes: Axes = ()) -> PreTrainedModel:
    """A language model of the catalogue's shape, changed by a candidate's axes, with random weights.

    Deeper than published, its layers come again.
    """
    changed: dict[str, Any] = dict(axes)
    sizes = [changed.get(name, 0) for name in ("lm_ffn", "lm_heads", "lm_experts")]
    spec = catalogue.language_model(lm).resized(*sizes)
    rule = changed.get("lm_layers", "uniform")
    kept = kept_layers(rule, spec, layers) if 0 < layers <= spec.layers else range(layers)
    with no_init_weights():
        model = build_language_model(spec, [index % spec.layers for index in kept], changed.get("attention", "sdpa"))
    _fill(model)
    quantise(model, changed.get("lm_weights", "native"))
    model.train(False)
    return model


def _empty(model: PreTrainedModel, block: BlockSpec) -> DynamicCache:
    """A cache of the block's own precision."""
    return empty_cache(model.config, str(dict(block.axes).get("kv_cache", "native")))


def decode(model: PreTrainedModel, cache: DynamicCache, **inputs: Tensor) -> Tensor:
    """Logits of the last position (B, 1, V); the cache grows."""
    logits: Tensor = model(**inputs, **{cache_argument(model): cache}, use_cache=True, logits_to_keep=1).logits
    if isinstance(cache, StateCache):
        cache.seen += next(iter(inputs.values())).shape[1]
    return logits[:, -1:]


def kept_state(cache: DynamicCache) -> Callable[[], None]:
    """What sets a cache back to what it holds now.

    Layers replace their keys and values by new tensors; states of convolutions and state spaces change in place.
    """
    whole: Any = cache
    fields = [(part, dict(vars(part))) for part in (whole, *whole.layers)]
    states = [
        (state, state.clone())
        for layer in whole.layers
        for name in ("conv_states", "recurrent_states")
        for state in getattr(layer, name, {}).values()
        if state is not None
    ]

    def restore() -> None:
        for part, values in fields:
            vars(part).update(values)
        for state, before in states:
            state.copy_(before)

    return restore
