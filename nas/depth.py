"""Which decoder layers of a language model stay. No torch."""

from __future__ import annotations


def kept_layers(rule: str, layers: int, depth: int) -> list[int]:
    """Which decoder layers stay. `uniform`: evenly spaced, the first and the last among them."""
    if rule != "uniform":
        raise KeyError(rule)
    if not 1 <= depth <= layers:
        raise ValueError(f"lm_depth must be in 1..{layers}, but got {depth}")
    if depth == 1:
        return [0]
    return [round(i * (layers - 1) / (depth - 1)) for i in range(depth)]
