"""Runs proxies on a built model; a proxy that fails says why and the others go on."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nas.records import ProxyScore
from proxies import Proxy, get
from proxies.shared import Reach, reach_of, shared_passes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas.model import MultimodalLM
    from proxies.batch import ProbeBatch
    from search_spaces import Candidate

# None of them runs the language model; FLOPs are in every record in closed form (counting them here takes 0.4 s).
# bench/quality/proxies.txt has what each says and costs.
DEFAULT = ("params", "depth-width", "rank-budget", "visual-tokens", "effective-rank", "compression-cka")
PROBE_IMAGES, PROBE_TEXT = 4, 8
MOST_PROBE_FLOPS = 1e11  # of encoders on the probe: some two seconds of one core
# Fields of a candidate that decide what its encoder makes of an image.
SEES = ("encoder", "resolution", "encoder_depth", "second_encoder", "fusion", "tiling", "tiles", "temporal_factor")


def probe_batch(model: MultimodalLM, seed: int) -> ProbeBatch:
    """The batch that every proxy of this model sees: smooth random images (or spectrograms) with random text."""
    from nas.cost_vision import placeholders, views
    from proxies.batch import random_batch

    return random_batch(
        size=PROBE_IMAGES,
        resolution=model.candidate.resolution,
        views=views(model.candidate),
        visual_tokens=placeholders(model.candidate, model.encoder_spec),
        text_tokens=PROBE_TEXT,
        vocab=model.language_spec.vocab,
        image_token_id=model.language_spec.image_token_id,
        seed=seed,
        mels=model.encoder_spec.mels,
    )


def proxies_of(candidate: Candidate, asked: Sequence[str] | None) -> tuple[str, ...]:
    """What is `asked` for, else DEFAULT; of these, where encoders take too long on the probe, what can be counted.

    An encoder as large as that has random weights here, whose tokens would say little.
    """
    if asked:
        return tuple(asked)
    is_large = probe_flops(candidate) > MOST_PROBE_FLOPS
    return tuple(name for name in DEFAULT if not (is_large and get(name).needs))


def probe_flops(candidate: Candidate) -> float:
    """Of its encoders on the probe."""
    from nas.cost_vision import second_encoder, view, views
    from search_spaces.catalogue import encoder

    first = view(encoder(candidate.encoder), candidate.resolution, candidate.encoder_depth)
    flops = first.flops + view(second_encoder(candidate), candidate.resolution).flops
    return PROBE_IMAGES * views(candidate) * flops


def what_it_sees(candidate: Candidate) -> tuple[object, ...]:
    """The same for candidates whose encoders make the same of an image."""
    return tuple(getattr(candidate, axis) for axis in SEES)


def score_candidate(candidate: Candidate, seed: int, names: Sequence[str]) -> dict[str, ProxyScore]:
    """Builds no more than these proxies read: where they only count, nothing; else a language model's values if some
    read them. Kernels of narrow weights have no gradients, so that matrices stay wide.
    """
    from nas.model import build

    wanted = [get(name) for name in names]
    if any(proxy.needs for proxy in wanted):
        shapes = not any(proxy.reads_decoder for proxy in wanted)
        model = build(candidate, seed=seed, quantised=False, decoder_shapes=shapes)
        return score(model, probe_batch(model, seed), names)
    import torch

    with torch.device("meta"):
        model = build(candidate, weights="random", quantised=False)
    return score(model, probe_batch(model, seed).shapes(), names)


def score(model: nn.Module, batch: ProbeBatch, names: Sequence[str] = DEFAULT) -> dict[str, ProxyScore]:
    """One ProxyScore a name: a finite value, or None with the reason.

    The encoder runs once for all and counts as frozen, as it is in training: gradients are those of projector and
    language model, and activations too. What several proxies need is computed for the first of them, whose seconds it
    counts in. Raises: ProxyError for an unknown name, before anything runs.
    """
    wanted = [get(name) for name in names]
    farthest = max((reach_of(proxy.needs) for proxy in wanted), default=Reach.ACTIVATIONS)
    with _frozen_encoder(model), shared_passes(farthest):
        shared = _with_features(model.eval(), batch)
        return {proxy.name: _score_one(proxy, model, shared) for proxy in wanted}


def _with_features(model: nn.Module, batch: ProbeBatch) -> ProbeBatch:
    """The encoder's tokens of the batch, (B, N, D); those of pretrained weights are kept for later candidates."""
    from dataclasses import replace

    from nas.cache_folder import cache_folder
    from nas.kept_arrays import kept_array, version_of

    spec = getattr(model, "encoder_spec", None)
    if spec is None or spec.weights is None or batch.vision_features is not None or batch.pixel_values.is_meta:
        return batch.with_vision_features(model)
    what = repr((version_of(spec.weights), what_it_sees(model.candidate)))  # type: ignore[arg-type]
    name = hashlib.sha256(what.encode() + batch.pixel_values.detach().numpy().tobytes()).hexdigest()

    def see() -> Tensor:
        seen = batch.with_vision_features(model).vision_features
        assert seen is not None
        return seen

    return replace(batch, vision_features=kept_array(cache_folder("probe") / f"{name[:32]}.npy", see))


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
