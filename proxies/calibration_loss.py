"""calibration-loss: how well the model predicts the labels before any training."""

from __future__ import annotations

from torch import nn

from proxies.batch import ProbeBatch
from proxies.gradients import mean_loss
from proxies.registry import proxy


@proxy(
    name="calibration-loss",
    paper="evaluated; Kim et al., Shortened LLaMA: Depth Pruning for Large Language Models with Comparison of "
    "Retraining Methods, 2024 (arXiv 2402.02834), eq. 3",
    equation="mean cross entropy of the labels",
    higher_is_better=False,
    needs=frozenset({"labels", "data", "weights"}),
)
def calibration_loss(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Of pretrained weights with real text; on random text it measures nothing of use."""
    return mean_loss(model, batch, splits, "calibration-loss")
