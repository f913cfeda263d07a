"""The few numbers that say how two designs of one space differ. Closed form, no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nas.cost_rows import Matrix
from nas.records import Cost
from search_spaces.candidate import OPTIONAL, Candidate
from search_spaces.catalogue import encoder, language_model


def rank_budget(candidate: Candidate) -> int:
    """Sum of min(inputs, outputs) over the matrices of the kept decoder layers."""
    lm = language_model(candidate.lm)
    query, key = lm.heads * lm.head_dim, lm.kv_heads * lm.head_dim
    layer = 2 * min(lm.hidden, query) + 2 * min(lm.hidden, key) + 3 * min(lm.hidden, lm.ffn)
    return candidate.lm_depth * layer


def structural(candidate: Candidate, costs: Cost) -> dict[str, float]:
    """Scores that follow from the design alone, so that every candidate of a space has them."""
    depth, width = candidate.lm_depth, language_model(candidate.lm).hidden
    return {
        "depth": float(depth), "width": float(width), "depth x width": float(depth * width),
        "depth x width^2": float(depth * width**2), "rank budget": float(rank_budget(candidate)),
        "flops": float(costs.flops), "vision flops": float(costs.vision_flops),
        "visual tokens": float(costs.visual_tokens),
    }  # fmt: skip


class Structure:
    """Standardised features of the candidates of one space: parts by name, sizes by their logarithm.

    Two encoders differ by `PART` beside their sizes; projector and compression are lighter, since a dozen anchors
    cannot tell their effect from chance. Both were chosen on the `main` set of the micro-VLM benchmark.
    """

    PART, CONNECTOR = 2.0, 0.3

    def __init__(self, space: Sequence[Candidate]) -> None:
        self.parts = {name: _values(space, name) for name in ("encoder", "lm", "projector", "compression", *OPTIONAL)}
        sizes = np.array([self._sizes(candidate) for candidate in space])
        self.mean, self.scale = sizes.mean(axis=0), sizes.std(axis=0)
        self.scale[self.scale == 0] = 1.0

    def features(self, candidates: Sequence[Candidate]) -> Matrix:
        """(candidates, features)."""
        sizes = np.array([self._sizes(candidate) for candidate in candidates])
        parts = np.array([self._parts(candidate) for candidate in candidates])
        return np.hstack([(sizes - self.mean) / self.scale, parts])

    @staticmethod
    def _sizes(candidate: Candidate) -> list[float]:
        vision, lm = encoder(candidate.encoder), language_model(candidate.lm)
        tokens = vision.tokens(candidate.resolution, candidate.compression_factor)
        return [
            math.log2(candidate.lm_depth),
            float(candidate.lm_depth == 1),  # nothing can be composed of what was read: a step, not a slope
            math.log2(lm.hidden),
            math.log2(max(1, tokens)),
            math.log2(vision.tokens(candidate.resolution)),
            float(vision.weights is not None),
        ]

    def _parts(self, candidate: Candidate) -> list[float]:
        """An indicator a value; axes that do not vary in the space, and LMs that are but sizes, have none."""
        found = []
        for name, values in self.parts.items():
            weight = self.PART if name == "encoder" else self.CONNECTOR
            if name == "lm" and not any(language_model(str(value)).weights for value in values):
                continue  # their sizes say all
            found += [weight * (getattr(candidate, name) == value) for value in values]
        return found


def _values(space: Sequence[Candidate], axis: str) -> list[str | int]:
    """What the axis takes in the space; nothing where it is one value."""
    found = sorted({getattr(candidate, axis) for candidate in space})
    return found if len(found) > 1 else []


def spread(features: Matrix, count: int) -> list[int]:
    """Indices of `count` rows that cover the others: the middle first, then always the farthest (Gonzalez 1985)."""
    chosen = [int(np.argmin(((features - features.mean(axis=0)) ** 2).sum(axis=1)))]
    distance = ((features - features[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < min(count, len(features)):
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, ((features - features[chosen[-1]]) ** 2).sum(axis=1))
    return chosen
