"""predicted:prior: quality from the structure of a candidate alone. Closed form, microseconds, no torch.

    error = (A / N^alpha) * (B / T^beta) with alpha = 0.077, beta = 0.015

is the scaling law of "Inference Optimal VLMs Need Only One Visual Token but Larger Models" (Li et al. 2024, arXiv
2411.03312, eq. 2) over LM size N (in billions) and visual tokens T, with A * B = 1 so that a 1 B model with one token
has error 1. Two factors of ours multiply N; both are ASSUMED until trained anchors of the space say better:

- layers dropped from a pretrained LM cost more than their parameters: N is scaled by (kept share)^1
- an encoder counts by its FLOPs on the image: the error is divided by FLOPs^0.01 (in GFLOPs)
"""

from __future__ import annotations

from nas.records import Cost, Quality
from search_spaces import Candidate
from search_spaces.catalogue import language_model

LM_EXPONENT, TOKEN_EXPONENT = 0.077, 0.015  # Li et al. 2024, eq. 2
KEPT_SHARE_EXPONENT, VISION_EXPONENT = 1.0, 0.01  # assumed
HALF_WIDTH = 0.10  # relative, assumed: nothing has calibrated this prior on trained models yet


def prior(candidate: Candidate, cost: Cost) -> Quality:
    """1 / (1 + error), in 0..1; higher is better. Depends on this candidate alone."""
    spec = language_model(candidate.lm)
    kept_share = candidate.lm_depth / spec.layers if spec.weights else 1.0
    lm_billions = cost.lm_body_params / 1e9 * kept_share**KEPT_SHARE_EXPONENT
    vision_gflops = cost.vision_flops / 1e9
    error = lm_billions**-LM_EXPONENT * cost.visual_tokens**-TOKEN_EXPONENT * vision_gflops**-VISION_EXPONENT
    value = 1 / (1 + error)
    return Quality(value, value * (1 - HALF_WIDTH), min(1.0, value * (1 + HALF_WIDTH)), "predicted:prior")
