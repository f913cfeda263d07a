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

The interval is an assumption too: 0.08, and up to 0.10 more below for the share of layers that were dropped.
"""

from __future__ import annotations

import math

from nas.records import Cost, Quality
from search_spaces.candidate import Candidate
from search_spaces.catalogue import encoder, language_model

ALPHA, BETA = 0.077, 0.015  # Li et al. 2024
A, D = 0.553, 0.036  # least squares on their 28 published accuracies
GRID_EXPONENT, VISION_EXPONENT = 0.01, 0.005  # assumed
RANDOM_ENCODER, LINEAR_PROJECTOR, POOL_AFTER_MLP = 1.25, 1.01, 0.99  # assumed from single comparisons
HALF_WIDTH, DROPPED_WIDTH = 0.08, 0.10  # assumed
TAIL, HIGHEST = 0.05, 0.999  # below TAIL the law is far outside its data: values shrink, but keep their order


def prior(candidate: Candidate, cost: Cost) -> Quality:
    """Accuracy-like quality in 0..1, higher is better; depends on this candidate alone."""
    vision, language = encoder(candidate.encoder), language_model(candidate.lm)
    dropped = 1 - candidate.lm_depth / language.layers if language.weights else 0.0
    billions = (cost.lm_body_params + cost.embedding_params) / 1e9 * (1 - dropped)
    tokens = max(1, cost.visual_tokens) * _kept_by_merging(candidate, vision.width, language.hidden)
    seeing = (max(1, cost.grid_tokens) / 256) ** -GRID_EXPONENT * (cost.vision_flops / 1e9) ** -VISION_EXPONENT
    if vision.weights is None:
        seeing *= RANDOM_ENCODER
    error = A * billions**-ALPHA * tokens**-BETA * seeing * _projector_factor(candidate) + D
    law = 1 - error
    low = _inside(law - HALF_WIDTH - DROPPED_WIDTH * dropped)
    return Quality(_inside(law), low, _inside(law + HALF_WIDTH), "predicted:prior")


def _kept_by_merging(candidate: Candidate, width: int, hidden: int) -> float:
    if candidate.compression != "pixel-shuffle":
        return 1.0
    return math.sqrt(min(candidate.compression_factor, max(1.0, hidden / width)))


def _projector_factor(candidate: Candidate) -> float:
    if candidate.projector == "linear":
        return LINEAR_PROJECTOR
    return POOL_AFTER_MLP if candidate.projector == "ldp-v2" and candidate.compression_factor > 1 else 1.0


def _inside(value: float) -> float:
    """Into 0..1 without ties: a smooth exponential tail below TAIL."""
    if value < TAIL:
        return TAIL * math.exp((value - TAIL) / TAIL)
    return min(HIGHEST, value)
