"""Runs proxies on a built model; a proxy that fails says why and the others go on."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nas.records import ProxyScore
from proxies import Proxy, get
from proxies.shared import shared_passes

if TYPE_CHECKING:
    from torch import nn

    from nas.model import MultimodalLM
    from proxies.batch import ProbeBatch

# All cheap: none of them runs the language model. bench/quality/proxies.txt has what each costs and says.
DEFAULT = ("params", "flops", "depth-width", "rank-budget", "visual-tokens", "effective-rank", "compression-cka")
PROBE_IMAGES, PROBE_TEXT = 4, 8


def probe_batch(model: MultimodalLM, seed: int) -> ProbeBatch:
    """The batch that every proxy of this model sees: smooth random images with random text."""
    from nas.cost_vision import views
    from proxies.batch import random_batch

    return random_batch(
        size=PROBE_IMAGES,
        resolution=model.candidate.resolution,
        views=views(model.candidate),
        visual_tokens=model.visual_tokens,
        text_tokens=PROBE_TEXT,
        vocab=model.language_spec.vocab,
        image_token_id=model.language_spec.image_token_id,
        seed=seed,
    )


def score(model: nn.Module, batch: ProbeBatch, names: Sequence[str] = DEFAULT) -> dict[str, ProxyScore]:
    """One ProxyScore a name: a finite value, or None with the reason.

    The encoder runs once for all and counts as frozen, as it is in training: gradients are those of projector and
    language model, and activations too. What several proxies need is computed for the first of them, whose seconds it
    counts in. Raises: ProxyError for an unknown name, before anything runs.
    """
    wanted = [get(name) for name in names]
    with _frozen_encoder(model), shared_passes():
        shared = batch.with_vision_features(model.eval())
        return {proxy.name: _score_one(proxy, model, shared) for proxy in wanted}


@contextmanager
def _frozen_encoder(model: nn.Module) -> Iterator[None]:
    encoder = getattr(model, "vision", None)
    modes = [(module, module.training) for module in model.modules()]
    flags = [] if encoder is None else [(weight, weight.requires_grad) for weight in encoder.parameters()]
    try:
        for weight, _ in flags:
            weight.requires_grad_(False)
        yield
    finally:
        for weight, flag in flags:
            weight.requires_grad_(flag)
        for module, training in modes:
            module.training = training


def _score_one(proxy: Proxy, model: nn.Module, batch: ProbeBatch) -> ProxyScore:
    start = time.perf_counter()
    try:
        value = proxy.score(model, batch)
    except Exception as error:  # a failing proxy must not take the candidate with it; its reason is kept
        reason = f"{type(error).__name__}: {error}"
        return ProxyScore(None, time.perf_counter() - start, reason, traceback.format_exc())
    return ProxyScore(value, time.perf_counter() - start)
