"""SNIP: how strongly the loss reacts to each weight, summed over the weights of projector and language model."""

from __future__ import annotations

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.isolation import isolated
from proxies.registry import proxy


@proxy(
    paper="Lee et al. 2019, arXiv 1810.02340; as a score: Abdelfattah et al. 2021, arXiv 2101.08134",
    equation="eq. 6 before normalisation: sum |w * dL/dw|",
    needs=("gradients", "labels", "images"),
)
def snip(model: nn.Module, batch: ProbeBatch) -> float:
    """Differs from the paper: the encoder is left out, because it stays frozen in training."""
    encoder = {id(weight) for weight in getattr(model, "vision", nn.Module()).parameters()}
    with isolated(model):
        model.eval()
        for weight in model.parameters():
            weight.requires_grad_(id(weight) not in encoder)
        model(**batch.inputs(), labels=batch.labels, use_cache=False).loss.backward()
        terms = [float((weight * weight.grad).detach().abs().sum(dtype=torch.float64)) for weight in model.parameters() if weight.grad is not None]
        return sum(terms)
