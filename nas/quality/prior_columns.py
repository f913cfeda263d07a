"""The prior of many candidates as columns, by the two sides of a design: equal to `nas.quality.prior`.

    quality = inside(bonus(b) + bonus(a) - level(b) * factor(a))

for a seeing side a (encoder, views, projector, compression, given the decoder that it feeds) and a language side b: the
law's error is a product over them, and what published results say beyond the law a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nas.cost_many import Costs
from nas.cost_rows import Matrix, Rows
from nas.quality.prior import (
    ALPHA,
    BETA,
    GRID_EXPONENT,
    RANDOM_ENCODER,
    TAIL,
    VISION_EXPONENT,
    A,
    D,
    is_published,
    kept_by_merging,
    projector_factor,
)  # fmt: skip
from nas.quality.published import beyond_the_law
from search_spaces import Candidate
from search_spaces.catalogue import encoder, language_model

# Axes that features beyond the law read together; the sum over these groups is the whole.
SEEING_GROUPS = (("encoder", "second_encoder", "resolution"), ("tiling", "tiles"), ("projector", "compression"))
LANGUAGE_GROUPS = (("lm", "lm_weights"),)


def seeing_columns(rows: Rows, costs: Costs, base: Candidate) -> tuple[Matrix, Matrix]:
    """(factor, bonus) of the seeing sides; `base` is any one candidate, the same for both sides."""
    kept = _figures(rows, ("encoder", "lm", "compression", "compression_factor"), _kept)
    tokens = np.maximum(1, costs.visual_tokens) * kept
    looks = (np.maximum(1, costs.grid_tokens) / 256) ** -GRID_EXPONENT * (costs.vision_flops / 1e9) ** -VISION_EXPONENT
    random_weights = _figures(rows, ("encoder",), lambda one: RANDOM_ENCODER if _is_random(one) else 1.0)
    seeing = np.where(_figures(rows, ("lm",), is_published) > 0, 1.0, looks) * random_weights
    projector = _figures(rows, ("projector", "compression_factor"), projector_factor)
    return tokens**-BETA * seeing * projector, _beyond(rows, SEEING_GROUPS, base)


def language_columns(rows: Rows, costs: Costs, base: Candidate) -> tuple[Matrix, Matrix]:
    """(level, bonus) of the language sides."""
    kept = _figures(rows, ("lm", "lm_depth"), _kept_layers)
    billions = (costs.lm_body_params + costs.embedding_params) / 1e9 * kept
    published = _figures(rows, ("lm",), is_published)
    bonus = _beyond(rows, LANGUAGE_GROUPS, base)
    of_base = _figures(rows, ("lm",), lambda one: beyond_the_law(base) if is_published(one) else 0.0)
    return A * billions**-ALPHA, 1 - D + of_base + bonus * published


def inside_columns(values: Matrix) -> Matrix:
    """Into 0..1 as the prior does it."""
    edge = np.minimum(values, 1 - values)
    tail = TAIL * np.exp((np.minimum(edge, TAIL) - TAIL) / TAIL)
    found: Matrix = np.where(edge >= TAIL, values, np.where(values < TAIL, tail, 1 - tail))
    return found


def _is_random(candidate: Candidate) -> bool:
    vision = encoder(candidate.encoder)
    return vision.weights is None and vision.hub is None


def _kept(candidate: Candidate) -> float:
    return kept_by_merging(candidate, encoder(candidate.encoder).width, language_model(candidate.lm).hidden)


def _kept_layers(candidate: Candidate) -> float:
    return candidate.lm_depth / language_model(candidate.lm).layers if is_published(candidate) else 1.0


def _beyond(rows: Rows, groups: Sequence[Sequence[str]], base: Candidate) -> Matrix:
    """What these axes add to what published results say of `base`; nothing for decoders they do not speak of."""
    total = np.zeros(len(rows))
    for axes in groups:

        def added(one: Candidate, axes: Sequence[str] = axes) -> float:
            changed = base.model_copy(update={axis: getattr(one, axis) for axis in axes})
            return beyond_the_law(changed) - beyond_the_law(base)

        total += _figures(rows, axes, added)
    found: Matrix = total * _figures(rows, ("lm",), is_published)
    return found


def _figures(rows: Rows, axes: Sequence[str], figure: Callable[[Candidate], float]) -> Matrix:
    """A number that these axes decide, of every row."""
    return rows.figures(axes, lambda one: [figure(one)])[0]
