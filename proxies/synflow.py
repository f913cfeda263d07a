"""synflow: how much signal can flow through the model's weights, as a logarithm."""

from __future__ import annotations

import math

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.interception import PositiveNetwork
from proxies.registry import ProxyError, proxy

# The stream grows by orders of magnitude a layer and the map is of degree one, so a small start only shifts the log.
START = 1e-280


@proxy(
    name="synflow",
    paper="Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow, "
    "NeurIPS 2020 (arXiv 2006.05467)",
    equation="log sum over weights of |w| * dR/d|w|, R = 1' f_|w|(1): synaptic flow, f linearised",
    needs=frozenset({"grad", "weights"}),
)
def synflow(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """No data: an image of ones, its mean visual token, one position of the language model, the sum of its logits.

    Where it differs from the paper: transformers are linearised as in `PositiveNetwork`; biases, position embeddings
    and class tokens carry no path from the input and are left out; sums are kept as logarithms.
    """
    image = torch.full_like(batch.pixel_values[:1], START, dtype=torch.float64, requires_grad=True)
    network = PositiveNetwork()
    with torch.enable_grad():
        with network:
            token = model.encode_images(image).mean(dim=1, keepdim=True)  # type: ignore[operator]
            logits = model(inputs_embeds=token, logits_to_keep=1).logits
        out = logits.sum()
        total = float(out.detach())
        if not 0 < total < math.inf:
            raise ProxyError(f"synflow's signal leaves double precision in this model: it arrives as {total:.0e}")
        (out / total).backward()  # every flow as a share of R: finite whatever R is
    if not network.flow > 0:
        raise ProxyError("synflow found no path through weights from the image to the logits")
    return math.log(total) - math.log(START) + math.log(network.flow)
