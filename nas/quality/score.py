"""Runs proxies on a built model; a proxy that fails says why and the others go on."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nas.records import ProxyScore
from proxies import get

if TYPE_CHECKING:
    from nas.model import MultimodalLM
    from proxies.batch import ProbeBatch

DEFAULT = ("params", "flops", "synflow", "snip", "naswot", "effective-rank")
PROBE_IMAGES, PROBE_TEXT = 4, 8


def probe_batch(model: MultimodalLM, seed: int) -> ProbeBatch:
    """The batch that every proxy of this model sees."""
    from proxies.batch import random_batch

    return random_batch(
        size=PROBE_IMAGES,
        resolution=model.candidate.resolution,
        visual_tokens=model.visual_tokens,
        text_tokens=PROBE_TEXT,
        vocab=model.language_spec.vocab,
        image_token_id=model.language_spec.image_token_id,
        seed=seed,
    )


def score(model: MultimodalLM, batch: ProbeBatch, names: Sequence[str] = DEFAULT) -> dict[str, ProxyScore]:
    """One ProxyScore a name: a finite value, or None with the reason."""
    return {name: _score_one(model, batch, name) for name in names}


def _score_one(model: MultimodalLM, batch: ProbeBatch, name: str) -> ProxyScore:
    declared = get(name)
    start = time.perf_counter()
    try:
        value = declared.score(model, batch)
    except Exception as error:  # a failing proxy must not take the candidate with it; its reason is kept
        return ProxyScore(None, time.perf_counter() - start, f"{type(error).__name__}: {error}")
    seconds = time.perf_counter() - start
    if not math.isfinite(value):
        return ProxyScore(None, seconds, f"not finite: {value}")
    return ProxyScore(value, seconds)
