"""meco: how little the channels of each layer depend on each other."""

from __future__ import annotations

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.one_pass import streams
from proxies.registry import proxy

CHANNELS = 8


@proxy(
    name="meco",
    paper="Jiang et al., MeCo: Zero-Shot NAS with One Data and Single Forward Pass via Minimum Eigenvalue of "
    "Correlation, NeurIPS 2023, eq. 5 and its sampled form MeCo_opt",
    equation="sum over layers of C/8 * smallest eigenvalue of the Pearson correlation of 8 of its C channels over "
    "all positions",
    needs=frozenset({"data"}),
    families="models with a stack of layers",
)
def meco(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Layers are the decoder layers; channels are evenly spaced where the paper draws them. 0 for one position."""
    score = 0.0
    for stream in streams(model, batch, splits, "meco")[1:]:
        channels = stream.flatten(0, 1).double().T
        picked = channels[torch.linspace(0, len(channels) - 1, CHANNELS).round().long()]
        centred = picked - picked.mean(dim=1, keepdim=True)
        unit = centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-30)
        score += len(channels) / CHANNELS * float(torch.linalg.eigvalsh(unit @ unit.T)[0].clamp_min(0))
    return score
