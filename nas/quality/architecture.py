"""The transformer that a row of a table describes: its matrices, and the four sizes that rank such models.

Columns are found by the names that configurations use (`n_layer`, `hidden_size`, `mlp_ratio`, ...), wherever they are
nested. Lists hold one entry a layer, or one a stage.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from nas.quality.columns import leaf, number

DEPTH = ("n_layer", "n_layers", "num_layers", "num_hidden_layers", "depth", "layers", "layer_num", "num_blocks")
WIDTH = ("d_model", "hidden_size", "hidden_dim", "embed_dim", "embedding_dim", "n_embd", "width", "hidden", "dim")
FFN = ("d_inner", "intermediate_size", "feed_forward_dimension", "ffn_dim", "d_ff", "mlp_dim", "ffn")
HEADS = ("n_head", "num_heads", "num_attention_heads", "heads")
RATIO, STAGE_WIDTH, LAYERS = ("mlp_ratio",), ("base_dim",), ("encoder_layers", "layers_config")
ELASTIC_HEAD = (
    64  # AutoFormer (Chen et al. 2021): a layer has more or fewer heads of this width, at one embedding width
)
LEADING, OFFERED = 2, ("params (counted)", "rank budget")  # features that always count; sizes that may join them
CONTEXT = 256  # tokens that one token attends to, where FLOPs are compared
MOST_LAYERS, MOST_WIDE = 4096, 2**31  # a larger depth or width counts something else
FIRST_FFN = 1024  # FlexiBERT's benchmark as trained: hidden -> 1024, then dense layers (Serianni & Kalita 2023)


@dataclass(frozen=True, slots=True)
class Architecture:
    """The body of a transformer, without embeddings and heads: a matrix is (inputs, outputs)."""

    layers: tuple[tuple[tuple[int, int], ...], ...]
    widths: tuple[int, ...]  # of the residual stream, by layer

    @property
    def depth(self) -> int:
        return len(self.layers)

    @property
    def width(self) -> float:
        """Mean over layers."""
        return sum(self.widths) / len(self.widths)

    @property
    def params(self) -> int:
        """Matrices with their biases, two norms a layer and one at the end."""
        weights = sum(a * b + b for layer in self.layers for a, b in layer)
        return weights + sum(4 * width for width in self.widths) + 2 * self.widths[-1]

    @property
    def rank_budget(self) -> int:
        """Sum of min(inputs, outputs) over the matrices."""
        return sum(min(a, b) for layer in self.layers for a, b in layer)

    @property
    def flops(self) -> int:
        """Of one token that attends to CONTEXT tokens: products with the matrices, scores and their mixing."""
        products = sum(a * b for layer in self.layers for a, b in layer)
        return 2 * products + 4 * CONTEXT * sum(layer[0][1] for layer in self.layers)

    def sizes(self) -> dict[str, float]:
        """Baselines of a table, by name."""
        depth, width = self.depth, self.width
        return {
            "params (counted)": float(self.params),
            "flops a token (counted)": float(self.flops),
            "depth": float(depth),
            "width": width,
            "depth x width": depth * width,
            "depth x width^2": depth * width**2,
            "rank budget": float(self.rank_budget),
        }

    def features(self) -> list[float]:
        """log depth, log width, log params, log rank budget; the last are made of the first LEADING for the most."""
        return [math.log2(value) for value in (self.depth, self.width, self.params, self.rank_budget)]


def architecture(row: Mapping[str, Any]) -> Architecture | None:
    """Of a flat row with dotted names; None where it does not name depth, width and feed-forward layers."""
    found = _described(row)
    if found is None or any(side < 1 for layer in found.layers for matrix in layer for side in matrix):
        return None
    return found


def _described(row: Mapping[str, Any]) -> Architecture | None:
    found = {leaf(key): _plain(value) for key, value in reversed(list(row.items()))}
    layers = _first(found, LAYERS)
    width = _first(found, WIDTH)
    if isinstance(layers, list) and layers and all(isinstance(layer, dict) for layer in layers):
        return _by_layers(layers, width)
    if _first(found, STAGE_WIDTH) is not None:
        return _by_stages(found)
    depth, heads = _first(found, DEPTH), _first(found, HEADS)
    if not _count(depth) or not _count(width) or depth > MOST_LAYERS:
        return None
    ratio = _first(found, RATIO)
    inner = _each(_first(found, FFN) if ratio is None else ratio, depth)
    elastic = ratio is not None and isinstance(heads, list)
    attention = _each(heads, depth) if elastic else [1.0] * depth
    if inner is None or attention is None:
        return None
    own, other = (ELASTIC_HEAD if elastic else width), (1 if ratio is None else width)
    built = [_layer(width, int(own * a), [int(other * f)]) for a, f in zip(attention, inner, strict=True)]
    return Architecture(tuple(built), (width,) * depth)


def _layer(width: int, attention: int, inner: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Query, key, value, the output, and the feed-forward layers in a row."""
    chain = [width, *inner, width]
    return (*[(width, attention)] * 3, (attention, width), *pairwise(chain))


def _by_layers(layers: Sequence[Mapping[str, Any]], width: Any) -> Architecture | None:
    """A mapping a layer. FlexiBERT's further dense layers have `feed_forward_dimension`; without any it is ignored."""
    if not _count(width):
        return None
    built = []
    for layer in layers:
        inner, dense = _plain(_first(layer, FFN)), _plain(layer.get("num_feed_forward"))
        if not _count(inner) or not (dense is None or _count(dense)):
            return None
        chain = [inner] if dense is None else [FIRST_FFN, *[inner] * (dense - 1)]
        built.append(_layer(width, width, chain))
    return Architecture(tuple(built), (width,) * len(built))


def _by_stages(found: Mapping[str, Any]) -> Architecture | None:
    """PiT (Heo et al. 2021): stage s is base_dim x num_heads[s] wide."""
    base, depths, heads = _first(found, STAGE_WIDTH), _first(found, DEPTH), _first(found, HEADS)
    if not isinstance(depths, list) or not isinstance(heads, list) or len(depths) != len(heads) or not depths:
        return None
    ratio = _each(_first(found, RATIO), len(depths))
    if ratio is None or not all(_count(one) for one in (base, *depths, *heads)) or sum(depths) > MOST_LAYERS:
        return None
    widths = [base * count for count, depth in zip(heads, depths, strict=True) for _ in range(depth)]
    ratios = [one for one, depth in zip(ratio, depths, strict=True) for _ in range(depth)]
    built = [_layer(width, width, [int(width * one)]) for width, one in zip(widths, ratios, strict=True)]
    return Architecture(tuple(built), tuple(widths))


def _first(found: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((found[name] for name in names if found.get(name) is not None), None)


def _each(value: Any, count: int) -> list[float] | None:
    """One a layer, above zero; None where it says none. A list that is too short repeats its last entry."""
    values = [number(one) for one in (value if isinstance(value, list) else [value])]
    known = [one for one in values if one is not None and 0 < one <= MOST_WIDE]
    if not values or len(known) < len(values):
        return None
    return (known + known[-1:] * count)[:count]


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST_WIDE


def _plain(value: Any) -> Any:
    """What a CSV cell stands for: `12` and `12.0` a whole number, `[3, 4]` a list."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if isinstance(value, list):
        return [_plain(one) if isinstance(one, float) else one for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
