"""logme: how well a linear model on the visual tokens would explain the answers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from proxies.batch import IGNORED, ProbeBatch
from proxies.probing import entering
from proxies.registry import ProxyError, proxy

ROUNDS, FLOOR = 100, 1e-10


@proxy(
    name="logme",
    paper="You et al., LogME: Practical Assessment of Pre-trained Models for Transfer Learning, ICML 2021 "
    "(arXiv 2102.11005), eq. 2 and algorithm 1",
    equation="log marginal evidence a sample, maximised over alpha and beta, of a Bayesian linear regression from "
    "the mean visual token to each answer, averaged over answers",
    needs=frozenset({"labels", "data", "weights"}),
    families="multimodal models with visual tokens",
)
def logme(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """The answer is the last label of a sample. Needs tens of samples with real labels to say anything."""
    features, places = entering(model, batch, splits).mean(dim=1).numpy(), batch.labels != IGNORED
    if not bool(places.any(dim=1).all()):
        raise ProxyError("logme needs a label in every sample")
    last = places.shape[1] - 1 - places.flip(1).int().argmax(dim=1)
    answers = batch.labels[torch.arange(len(batch)), last].numpy()
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    found = [_evidence(left, singular**2, answers == answer, features.shape[1]) for answer in np.unique(answers)]
    return float(np.mean(found))


def _evidence(left: NDArray[np.float64], squares: NDArray[np.float64], hits: NDArray[np.bool_], width: int) -> float:
    """Evidence a sample of one target (n,) given the left singular vectors (n, r) and squared singular values (r,)."""
    target = hits.astype(float)
    n = len(target)
    projected = (left.T @ target) ** 2
    outside = float(target @ target - projected.sum())
    alpha, beta = 1.0, 1.0
    for _ in range(ROUNDS):
        ratio = alpha / beta
        gamma = float((squares / (squares + ratio)).sum())
        length = float((squares * projected / (squares + ratio) ** 2).sum())
        error = max(float((projected * (ratio / (squares + ratio)) ** 2).sum()) + max(outside, 0.0), FLOOR)
        alpha = min(max(gamma / max(length, FLOOR), FLOOR), 1 / FLOOR)
        beta = min(max((n - gamma) / error, FLOOR), 1 / FLOOR)
        if abs(alpha / beta - ratio) <= 1e-3 * ratio:
            break
    logs = float(np.log(alpha + beta * squares).sum()) + (width - len(squares)) * float(np.log(alpha))
    return (
        0.5
        * float(n * np.log(beta) + width * np.log(alpha) - n * np.log(2 * np.pi) - beta * error - alpha * length - logs)
        / n
    )
