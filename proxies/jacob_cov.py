"""jacob-cov: how differently the model reacts to the images of a batch."""

from __future__ import annotations

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.registry import proxy

K = 1e-5


@proxy(
    name="jacob-cov",
    paper="Mellor et al., Neural Architecture Search without Training, arXiv 2006.04647 version 1, eq. 2; of visual "
    "tokens instead of pixels, since the encoder is frozen",
    equation="-sum_i [log(s_i + k) + 1 / (s_i + k)], s_i the eigenvalues of the correlation matrix of the samples' "
    "d(sum of last logits)/d(visual tokens), k = 1e-5",
    needs=frozenset({"grad", "data"}),
    families="multimodal models with visual tokens",
)
def jacob_cov(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """The language model sees the visual tokens alone."""
    rows = []
    for part in batch.split(splits):
        with torch.no_grad():
            tokens = part.visual_tokens(model)
        tokens = tokens.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = model(inputs_embeds=tokens, logits_to_keep=1).logits
            (grad,) = torch.autograd.grad(logits.sum(), tokens)
        rows.append(grad.flatten(1).double())
    jacobian = torch.cat(rows)
    centred = jacobian - jacobian.mean(dim=1, keepdim=True)
    unit = centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-30)
    values = torch.linalg.eigvalsh(unit @ unit.T).clamp_min(0) + K
    return -float((values.log() + 1 / values).sum())
