"""dss: synaptic diversity of attention and saliency of the rest."""

from __future__ import annotations

import re

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.gradients import loss_gradients
from proxies.registry import ProxyError, proxy

ATTENTION = re.compile(r"(attn|attention|qkv|[qkvo]_proj|\.out\.)")


@proxy(
    name="dss",
    paper="Zhou et al., Training-free Transformer Architecture Search, CVPR 2022 (arXiv 2203.12217), eq. 5 to 7",
    equation="sum over attention matrices of |dL/dW|_nuc * |W|_nuc + sum over the other matrices of dL/dW . W",
    needs=frozenset({"grad", "labels", "data"}),
    families="transformers",
)
def dss(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Attention matrices are those whose name says so; nuclear norms by SVD, which makes it a slow one."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    score, found = 0.0, False
    for parameter, grad in loss_gradients(model, batch, splits, "dss"):
        weight = parameter.detach()
        if weight.ndim != 2:
            continue
        if ATTENTION.search(names[parameter]):
            found = True
            score += float(torch.linalg.matrix_norm(grad, "nuc") * torch.linalg.matrix_norm(weight, "nuc"))
        else:
            score += float((grad * weight).sum(dtype=torch.float64))
    if not found:
        raise ProxyError("dss needs attention matrices, but no trainable weight is named as one")
    return score
