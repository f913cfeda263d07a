"""predicted:prior: quality from the structure of a candidate alone. Closed form, microseconds, no torch.

    error = A / N^alpha / T^beta + D,   quality = 1 - error

is the scaling law of Li et al., "Inference Optimal VLMs Need Only One Visual Token but Larger Models" (2024, arXiv
2411.03312), over LM parameters N (in billions) and visual tokens T, with its alpha = 0.077 and beta = 0.015. A = 0.553
and D = 0.036 are a least-squares fit of ours to the 28 accuracies that its authors publish (0.5-7 B, 1-576 tokens;
root mean square residual 0.004). Below 0.5 B it extrapolates.

What the law does not know is ASSUMED, small, and stated here; no trained model of this project was used:

- Layers dropped from a pretrained LM cost more than their parameters, since what stays has to heal: N is multiplied by
  the kept share once more.
- Seeing: error x (grid tokens / 256)^-0.01 x (encoder FLOPs / 1 GFLOP)^-0.005. Published groups rank encoders poorly by
  their size (Spearman 0.09), so these only break ties. An encoder without pretrained weights: error x 1.25 (easy-VQA,
  random against pretrained EfficientNet-Lite0 under one recipe: 0.61 against 0.99 on open questions).
- Compression: a pixel shuffle keeps what an average loses, up to the LM's width: T is multiplied by the square root of
  min(factor, max(1, hidden / encoder width)).
- Projector: one matrix instead of an MLP, error x 1.01 (LLaVA-1.5, arXiv 2310.03744, found the MLP better); pooling
  after the MLP instead of before, error x 0.99 (LLaVA-NeXT ablations, May 2024).

Where the language model has published weights, encoder, resolution, tiles, age of the parts, resamplers and precision
count by what 32 groups of published comparisons say of them (`published.json`, with its sources and the accuracy that
a unit of the score is worth), in place of the assumptions on seeing; a unit of log LM params is worth the same there as
by the law (0.026 an octave). The interval is then 80 % of the published rows around their group's mean, left out in
turn: it speaks of designs under one recipe, not of the level that the recipe reaches.

For other language models the interval is an assumption: 0.08. For both, up to 0.10 more below for the share of layers
that were dropped.
"""

from __future__ import annotations

import math

from nas.quality.published import beyond_the_law, calibration
from nas.records import Cost, Quality
from search_spaces.candidate import Candidate
from search_spaces.catalogue import encoder, language_model

ALPHA, BETA = 0.077, 0.015  # Li et al. 2024
A, D = 0.553, 0.036  # least squares on their 28 published accuracies
GRID_EXPONENT, VISION_EXPONENT = 0.01, 0.005  # assumed
RANDOM_ENCODER, LINEAR_PROJECTOR, POOL_AFTER_MLP = 1.25, 1.01, 0.99  # assumed from single comparisons
HALF_WIDTH, DROPPED_WIDTH = 0.08, 0.10  # assumed
TAIL = 0.05  # this near to 0 or 1 the law is far outside its data: values shrink, but keep their order


def prior(candidate: Candidate, cost: Cost) -> Quality:
    """Accuracy-like quality in 0..1, higher is better; depends on this candidate alone."""
    vision, language = encoder(candidate.encoder), language_model(candidate.lm)
    dropped = 1 - candidate.lm_depth / language.layers if is_published(candidate) else 0.0
    billions = (cost.lm_body_params + cost.embedding_params) / 1e9 * (1 - dropped)
    tokens = max(1, cost.visual_tokens) * kept_by_merging(candidate, vision.width, language.hidden)
    seeing = (max(1, cost.grid_tokens) / 256) ** -GRID_EXPONENT * (cost.vision_flops / 1e9) ** -VISION_EXPONENT
    if vision.weights is None and vision.hub is None:
        seeing *= RANDOM_ENCODER
    published = is_published(candidate)
    if published:
        seeing = RANDOM_ENCODER if vision.weights is None and vision.hub is None else 1.0
    error = A * billions**-ALPHA * tokens**-BETA * seeing * projector_factor(candidate) + D
    value = 1 - error + (beyond_the_law(candidate) if published else 0.0)
    half = calibration()["half_width"] if published else HALF_WIDTH
    low = inside(value - half - DROPPED_WIDTH * dropped)
    return Quality(inside(value), low, inside(value + half), "predicted:prior")


def is_published(candidate: Candidate) -> bool:
    """Whether its language model is one that published results speak of: one with weights, of whatever size."""
    language = language_model(candidate.lm)
    return language.weights is not None or language.hub is not None


def kept_by_merging(candidate: Candidate, width: int, hidden: int) -> float:
    if candidate.compression != "pixel-shuffle":
        return 1.0
    return math.sqrt(min(candidate.compression_factor, max(1.0, hidden / width)))


def projector_factor(candidate: Candidate) -> float:
    if candidate.projector == "linear":
        return LINEAR_PROJECTOR
    return POOL_AFTER_MLP if candidate.projector == "ldp-v2" and candidate.compression_factor > 1 else 1.0


def inside(value: float) -> float:
    """Into 0..1 without ties: smooth exponential tails below TAIL and above 1 - TAIL."""
    if value < TAIL:
        return TAIL * math.exp((value - TAIL) / TAIL)
    return 1 - inside(1 - value) if value > 1 - TAIL else value
