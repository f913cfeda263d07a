"""near: how many directions the activations of each layer span."""

from __future__ import annotations

from torch import Tensor, nn

from proxies.batch import ProbeBatch
from proxies.one_pass import activations
from proxies.recording import spaced_rows
from proxies.registry import proxy
from proxies.spectrum import spectral_rank


@proxy(
    name="near",
    paper="Husistein et al., NEAR: A Training-Free Pre-Estimator of Machine Learning Model Performance, ICLR 2025 "
    "(arXiv 2408.08776), definition 3.1 and eq. 5",
    equation="sum over layers of the effective rank exp(-sum_i p_i log p_i) of the activations, p_i = s_i / sum s",
    needs=frozenset({"data"}),
    families="networks with activations between their layers",
)
def near(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Rows are the positions of all samples, at most 256 of them; after the activation function."""
    layers = activations(model, batch, splits, "near").outputs
    return sum(spectral_rank(spaced_rows(layer), _rounding) for layer in layers)


def _rounding(squares: Tensor) -> Tensor:
    return 1e-12 * squares[-1].clamp_min(1e-300)
