"""The one recipe that all finalists of a run are trained by. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """What every finalist of a run is trained by. Published in its report."""

    steps: int = 240
    images: int = 6  # a step
    questions: int = 6  # an image
    lm_rate: float = 3e-4
    projector_rate: float = 1e-3
    warmup: float = 0.1
    open_share: float = 0.75  # of an image's questions; yes/no questions are mostly answerable blind
    seed: int = 0
