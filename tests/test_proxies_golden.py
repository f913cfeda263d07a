"""Each proxy's number against an independent computation on a model small enough to do by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import proxies
from proxies.batch import ProbeBatch, random_batch
from proxies.effective_rank import MOST_TOKENS
from proxies.interception import PositiveNetwork
from proxies.spectrum import spectral_rank
from proxies.testing import IMAGE_TOKEN, VOCABULARY, TinyMultimodal, TinyOutput, tiny_batch


class TwoLayers(nn.Module):
    """image (B, 3, 1, 1) -> W1 -> one visual token; relu; W2 -> logits."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.first, self.second = nn.Linear(3, 4, bias=False), nn.Linear(4, 5, bias=False)
        for layer in (self.first, self.second):
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator)

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        token: Tensor = self.first(pixel_values.flatten(1)).unsqueeze(1)
        return token

    def forward(
        self,
        *,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        logits_to_keep: int = 0,
    ) -> TinyOutput:
        if inputs_embeds is None:
            assert pixel_values is not None
            inputs_embeds = self.encode_images(pixel_values)
        logits = self.second(F.relu(inputs_embeds))
        return TinyOutput(None if labels is None else F.cross_entropy(logits[:, 0], labels[:, 1]), logits)


def two_layer_batch() -> ProbeBatch:
    pixels = torch.randn(4, 3, 1, 1, generator=torch.Generator().manual_seed(1))
    ids = torch.zeros(4, 2, dtype=torch.long)
    return ProbeBatch(pixels, ids, torch.ones_like(ids), torch.tensor([[-100, i] for i in range(4)]))


def score(name: str, model: nn.Module, batch: ProbeBatch) -> float:
    return proxies.get(name).score(model, batch)


def weights() -> tuple[np.ndarray, np.ndarray]:
    model = TwoLayers()
    return model.first.weight.detach().double().numpy(), model.second.weight.detach().double().numpy()


def test_params_are_counted_by_hand() -> None:
    assert score("params", TwoLayers(), two_layer_batch()) == 3 * 4 + 4 * 5


def test_flops_are_two_per_multiply_add() -> None:
    assert score("flops", TwoLayers(), two_layer_batch()) == 2 * (3 * 4 + 4 * 5)


def test_flops_count_attention() -> None:
    tokens, text, hidden, inner, vocabulary = 4, 6, 16, 32, 32
    block: Callable[[int, int], int] = lambda t, h: t * (3 * h * h + h * h + 2 * h * 2 * h) + 2 * t * t * h  # noqa: E731
    by_hand = tokens * 3 * 16 * 8 + block(tokens, 8) + tokens * 8 * hidden + 2 * block(tokens + text, hidden)
    assert inner == 2 * hidden
    assert score("flops", TinyMultimodal(), tiny_batch()) == 2 * (by_hand + hidden * vocabulary)


def test_snip_equals_the_gradient_by_hand() -> None:
    first, second = weights()
    batch = two_layer_batch()
    x = batch.pixel_values.flatten(1).double().numpy()
    hidden = np.maximum(x @ first.T, 0)
    logits = hidden @ second.T
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = (shares - np.eye(5)[:4]) / 4
    grad_second = error.T @ hidden
    grad_first = ((error @ second) * (hidden > 0)).T @ x
    expected = np.abs(grad_second * second).sum() + np.abs(grad_first * first).sum()
    assert score("snip", TwoLayers(), batch) == pytest.approx(expected, rel=1e-5)


def test_synflow_equals_the_papers_sum_on_a_linear_chain() -> None:
    first, second = weights()
    flow = np.abs(second) @ np.abs(first) @ np.ones(3)  # R = 1' |W2| |W1| 1, and each layer's weights conserve it
    assert score("synflow", TwoLayers(), two_layer_batch()) == pytest.approx(math.log(2 * flow.sum()), rel=1e-6)


def test_synaptic_flow_of_a_residual_net_equals_autograd() -> None:
    generator = torch.Generator().manual_seed(5)
    up, down, head = (torch.randn(6, 6, generator=generator) for _ in range(3))
    x = torch.ones(1, 6, dtype=torch.float64, requires_grad=True)
    modules = [nn.Linear(6, 6, bias=False) for _ in range(3)]
    for module, weight in zip(modules, (up, down, head), strict=True):
        module.weight.data = weight
    network = PositiveNetwork()
    with network:
        out = modules[2](x + modules[1](F.gelu(modules[0](x)))).sum()
    out.backward()
    magnitudes = [weight.abs().double().requires_grad_() for weight in (up, down, head)]
    ones = torch.ones(1, 6, dtype=torch.float64)
    total = ((ones + ones @ magnitudes[0].T @ magnitudes[1].T) @ magnitudes[2].T).sum()
    grads = torch.autograd.grad(total, magnitudes)
    expected = sum(float((w * g).detach().sum()) for w, g in zip(magnitudes, grads, strict=True))
    assert out.item() == pytest.approx(total.item(), rel=1e-6)
    assert network.flow == pytest.approx(expected, rel=1e-6)


def test_synflow_sees_no_data_and_grows_with_depth() -> None:
    values = [score("synflow", TinyMultimodal(depth=depth), tiny_batch(seed=depth)) for depth in (1, 2, 4)]
    assert values == sorted(values)
    assert score("synflow", TinyMultimodal(), tiny_batch(seed=8)) == score("synflow", TinyMultimodal(), tiny_batch())


def test_synflow_survives_two_hundred_layers() -> None:
    assert score("synflow", TinyMultimodal(depth=100), tiny_batch()) > 100


@pytest.mark.parametrize("seed", range(6))
def test_naswot_equals_the_hamming_kernel(seed: int) -> None:
    pixels = torch.randn(3, 3, 1, 1, generator=torch.Generator().manual_seed(seed))
    batch = replace(two_layer_batch().take(0, 3), pixel_values=pixels)
    codes = (pixels.flatten(1).double().numpy() @ weights()[0].T > 0).astype(int)
    kernel = np.array([[4 - np.abs(a - b).sum() for b in codes] for a in codes], dtype=float)
    if np.linalg.matrix_rank(kernel) == 3:
        assert score("naswot", TwoLayers(), batch) == pytest.approx(np.log(np.linalg.det(kernel)))
    else:
        with pytest.raises(proxies.ProxyError, match="samples that differ"):
            score("naswot", TwoLayers(), batch)


def test_effective_rank_equals_the_entropy_of_singular_values() -> None:
    model, batch = TinyMultimodal().eval(), tiny_batch()
    tokens = model.encode_images(batch.pixel_values).flatten(0, 1).detach().double().numpy()
    values = np.linalg.svd(tokens - tokens.mean(axis=0), compute_uv=False)
    shares = values[values > 1e-6 * values.max()] / values[values > 1e-6 * values.max()].sum()
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert score("effective-rank", model, batch) == pytest.approx(expected, rel=1e-4)


def test_effective_rank_of_many_tokens_is_near_that_of_all() -> None:
    model = TinyMultimodal().eval()
    batch = random_batch(resolution=16, visual_tokens=16, image_token_id=IMAGE_TOKEN, vocab=VOCABULARY, size=80)
    tokens = model.encode_images(batch.pixel_values).flatten(0, 1).detach().double()
    assert len(tokens) > 2 * MOST_TOKENS
    whole = spectral_rank(tokens - tokens.mean(dim=0), lambda squares: squares.max() * 1e-12)
    assert score("effective-rank", model, batch) == pytest.approx(whole, rel=0.05)


def test_effective_rank_of_equal_tokens_is_zero() -> None:
    model = TinyMultimodal()
    nn.init.zeros_(model.projector.weight)
    assert score("effective-rank", model, tiny_batch()) == 0


def test_log_synflow_by_hand() -> None:
    """R = 1' |W2| |W1| 1: dR/d|W1|_ij = sum_o |W2|_oi, dR/d|W2|_oi = sum_j |W1|_ij."""
    first, second = (np.abs(weight) for weight in weights())
    through = np.log1p(second.sum(axis=0))[:, None] * first, np.log1p(first.sum(axis=1))[None] * second
    expected = through[0].sum() + through[1].sum()
    assert score("log-synflow", TwoLayers(), two_layer_batch()) == pytest.approx(expected, rel=1e-5)
