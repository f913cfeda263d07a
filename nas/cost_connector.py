"""Closed-form cost of what lies between encoder and language model: compression and projector. No torch."""

from __future__ import annotations

from search_spaces.catalogue import EncoderSpec


def connector_cost(
    projector: str, compression: str, factor: int, spec: EncoderSpec, hidden: int, resolution: int
) -> tuple[int, int]:
    """(parameters, FLOPs of one image) of compression and projector."""
    grid_tokens, tokens = spec.tokens(resolution), spec.tokens(resolution, factor)
    width = spec.width * (factor if compression == "pixel-shuffle" else 1)
    first, second = width * hidden, hidden * hidden
    if projector == "linear":
        return first + hidden, 2 * tokens * first
    mlp_params = first + second + 2 * hidden
    if projector == "mlp":
        return mlp_params, 2 * tokens * (first + second)
    if projector == "pixel-shuffle":
        return mlp_params + 2 * width, 2 * tokens * (first + second)
    if projector == "ldp-v2":
        return mlp_params + 10 * hidden, 2 * grid_tokens * (first + second) + 2 * tokens * 9 * hidden
    raise KeyError(projector)
