"""Sizes and kinds that rules speak of beside the axes: each follows from a few axes and the catalogue."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from search_spaces import catalogue
from search_spaces.catalogue import EncoderSpec, LanguageModelSpec

Value = str | int
Values = Mapping[str, Value]


def _encoder(values: Values, axis: str = "encoder") -> EncoderSpec:
    return catalogue.encoder(str(values[axis]))


def _lm(values: Values) -> LanguageModelSpec:
    return catalogue.language_model(str(values["lm"]))


def _second_stride(values: Values) -> int:
    """Pixels a token of the second encoder; 1, which divides all, where there is none."""
    return 1 if values["second_encoder"] == "none" else _encoder(values, "second_encoder").stride


def _input(values: Values, axis: str) -> str:
    """What an encoder takes: sound or pictures; none where there is no second one."""
    if values[axis] == "none":
        return "none"
    return "sound" if _encoder(values, axis).mels else "pictures"


def _block_side(values: Values) -> int:
    """Side of the square of tokens that become one; 0, which divides nothing, where the factor is not a square."""
    factor = int(values["compression_factor"])
    side = math.isqrt(factor)
    return side if side * side == factor else 0


def _most_merging(values: Values) -> int:
    """Blocks of a plain ViT take out equal shares of its tokens, each at most half of what it has; 0 in other encoders.

    The last of L blocks merges (1 - 1/f) / L of all tokens where 1/f stay: f is at most L + 1.
    """
    spec = _encoder(values)
    return spec.blocks(int(values["encoder_depth"])) + 1 if spec.plain_blocks else 0


def _mixing(values: Values) -> str:
    """What every decoder layer mixes tokens by, or `several`."""
    kinds = set(_lm(values).layer_pattern)
    return kinds.pop() if len(kinds) == 1 else "several"


def _layer_rule(values: Values) -> str:
    """Layers of random weights are all alike; an order other than the plain ones must be in the catalogue."""
    lm, rule = _lm(values), values["lm_layers"]
    known = rule == "uniform" or (lm.weights is not None and (rule == "first" or rule in lm.layer_orders))
    return "known" if known else "unknown"


def _heads_a_group(lm: LanguageModelSpec) -> int:
    """Query heads that share keys and values; 1 where there is no attention."""
    return lm.heads // lm.kv_heads if lm.kv_heads else 1


# name -> the axes that decide it, and how
DERIVED: dict[str, tuple[tuple[str, ...], Callable[[Values], Value]]] = {
    "encoder_family": (("encoder",), lambda values: _encoder(values).family),
    "encoder_input": (("encoder",), lambda values: _input(values, "encoder")),
    "second_input": (("second_encoder",), lambda values: _input(values, "second_encoder")),
    "encoder_stride": (("encoder",), lambda values: _encoder(values).stride),
    "encoder_deepest_cut": (("encoder",), lambda values: max((_encoder(values).layers or 0) - 1, 0)),
    "encoder_most_merging": (("encoder", "encoder_depth"), _most_merging),
    "second_stride": (("second_encoder",), _second_stride),
    "grid_side": (("encoder", "resolution"), lambda values: _encoder(values).grid_side(int(values["resolution"]))),
    "grid_tokens": (("encoder", "resolution"), lambda values: _encoder(values).tokens(int(values["resolution"]))),
    "block_side": (("compression_factor",), _block_side),
    "lm_published_depth": (("lm",), lambda values: _lm(values).layers),
    "lm_widest_cut": (("lm",), lambda values: max(_lm(values).ffn - 1, 0)),
    "lm_most_heads_cut": (("lm",), lambda values: max(_lm(values).heads - 1, 0)),
    "lm_heads_a_group": (("lm",), lambda values: _heads_a_group(_lm(values))),
    "lm_ffn_past_8": (("lm_ffn",), lambda values: int(values["lm_ffn"]) % 8),
    "lm_form": (("lm",), lambda values: _lm(values).architecture),
    "lm_mixing": (("lm",), _mixing),
    "lm_layer_rule": (("lm", "lm_layers"), _layer_rule),
    "last_pruning_layer": (("lm_depth",), lambda values: int(values["lm_depth"]) - 1),
}


def derive(name: str, values: Values) -> Value:
    """The value of an axis or of a derived size."""
    return DERIVED[name][1](values) if name in DERIVED else values[name]


def deciding_axes(name: str) -> tuple[str, ...]:
    """The axes that decide an axis (itself) or a derived size."""
    return DERIVED[name][0] if name in DERIVED else (name,)
