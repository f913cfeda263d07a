"""What only some designs have, as calls on random weights and inputs that are timed.

Joining the tokens of two encoders or several scales, pruning by an encoder's attention, dropping by FastV, and
gated cross-attention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nas.latency.blocks import BlockSpec
from nas.model.cross import GatedCrossAttention
from nas.model.fastv import FastV, last_row
from nas.model.language import head_width
from nas.model.project import Connector, build_connector
from nas.model.prune import PRUNERS, importance
from nas.model.views import Join, renormalised
from nas.model.vision import VisionEncoder
from search_spaces import catalogue

Call = Callable[[], object]


def join(block: BlockSpec) -> Call:
    """Pixels normalised for the second encoder, its map brought to the first's grid, and both put together."""
    axes = dict(block.axes)
    spec = catalogue.encoder(block.encoder)
    second = catalogue.encoder(str(axes["second_encoder"])) if "second_encoder" in axes else None
    part = Join(str(axes.get("fusion", "none")), int(axes.get("tiles", 1)))
    pixels = torch.randn(block.batch, 3, block.resolution, block.resolution)
    own = torch.randn(block.batch, spec.tokens(block.resolution), spec.width)
    if second is None:
        return lambda: part(own, None)
    other = torch.randn(block.batch, second.tokens(block.resolution), second.width)
    return lambda: (renormalised(pixels, spec, second), part(own, other))


def prune(block: BlockSpec) -> Call:
    """Scores of the last attention, and what is made of the tokens by them."""
    spec = catalogue.encoder(block.encoder)
    assert spec.heads is not None
    tokens = torch.randn(block.batch, spec.tokens(block.resolution), spec.width)
    prefix, left = spec.prefix_tokens, tokens.shape[1] // block.compression_factor
    queries, keys = torch.randn(2, block.batch, spec.heads, tokens.shape[1] + prefix, spec.width // spec.heads)
    method = PRUNERS[block.compression]

    def run() -> object:
        scores = importance(queries, keys, prefix, prefix > 0 and spec.class_token)
        return method(tokens, scores, keys[:, :, prefix:], left)

    return run


def fastv(block: BlockSpec, decoder: Any) -> Call:
    """Half of a prompt dropped after a layer of `decoder`, which has two: scores, choice, states and positions."""
    config, length, width = decoder.config, block.length, head_width(decoder.config)
    queries = torch.randn(block.batch, config.num_attention_heads, length, width)
    keys = torch.randn(block.batch, config.num_key_value_heads, length, width)
    states = torch.randn(block.batch, length, config.hidden_size)
    places = torch.arange(length).expand(block.batch, -1) < length - 1
    positions = {
        "position_embeddings": tuple(torch.randn(2, 1, length, width)), "position_ids": torch.arange(length)[None],
    }  # fmt: skip
    hooks = FastV(decoder, 1, 2)

    def run() -> object:
        hooks.mark(places, length - 1)
        hooks.scorer.scores = last_row(queries, keys, width**-0.5, None)
        return hooks.shorten((states,), positions, True)

    return run


def crossing(block: BlockSpec) -> Call:
    """Gated layers in a row on `length` positions; in a prefill they also make keys and values of the image."""
    hidden = catalogue.language_model(block.lm).hidden
    layers = [GatedCrossAttention(hidden).eval() for _ in range(block.depth)]
    text = torch.randn(block.batch, block.length, hidden)
    visual = torch.randn(block.batch, block.visual, hidden)
    kept = [layer.keys_values(visual) for layer in layers]
    begins = block.kind == "cross_prefill"

    def run() -> object:
        states = text
        for layer, seen in zip(layers, kept, strict=True):
            states = layer(states, *(layer.keys_values(visual) if begins else seen))
        return states

    return run


def cut_encoder(block: BlockSpec) -> nn.Module:
    """An encoder, or its first blocks; with merging in them where the block says so."""
    depth = int(dict(block.axes).get("encoder_depth", 0))
    spec = catalogue.encoder(block.encoder)
    return VisionEncoder(spec, block.resolution, depth, block.compression, block.compression_factor).eval()


def connector(block: BlockSpec) -> tuple[nn.Module, torch.Tensor]:
    """Merging of frames, compression and projector as one module, and tokens (B, frames N, D) for it."""
    spec, hidden = catalogue.encoder(block.encoder), catalogue.language_model(block.lm).hidden
    pruned = block.compression == "pruned"
    tokens = spec.tokens(block.resolution, block.compression_factor if pruned else 1)
    width, frames = block.width or spec.width, int(dict(block.axes).get("temporal_factor", 1))
    parts = build_connector(
        block.projector, "none" if pruned else block.compression, block.compression_factor, width, hidden,
        spec.grid(block.resolution),
    )  # fmt: skip
    return Connector(parts, tokens, frames).eval(), torch.randn(block.batch, frames * tokens, width)
