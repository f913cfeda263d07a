"""Which decoder layers of a language model stay. No torch."""

from __future__ import annotations

from search_spaces.catalogue import LanguageModelSpec


def kept_layers(rule: str, spec: LanguageModelSpec, depth: int) -> list[int]:
    """Which decoder layers stay, rising. `uniform`: evenly spaced, the first and the last among them; `first`: the
    first ones; any other rule: all but those that go first in the layer order of that name (`nas.model.layer_order`).
    """
    if not 1 <= depth <= spec.layers:
        raise ValueError(f"lm_depth must be in 1..{spec.layers}, but got {depth}")
    if rule == "uniform":
        steps = max(1, depth - 1)
        return [round(i * (spec.layers - 1) / steps) for i in range(depth)]
    if rule == "first":
        return list(range(depth))
    return sorted(spec.layer_orders[rule][spec.layers - depth :])
