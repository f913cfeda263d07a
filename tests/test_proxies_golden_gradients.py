"""Gradient and activation proxies against independent computations on the tiny model: by hand, numpy, differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import proxies
from proxies.batch import ProbeBatch
from proxies.testing import TinyMultimodal, TinyOutput, tiny_batch


def score(name: str, model: nn.Module, batch: ProbeBatch) -> float:
    return proxies.get(name).score(model, batch)


def loss_of(model: nn.Module, batch: ProbeBatch) -> Tensor:
    """The mean cross entropy of the labels, from the logits."""
    logits = model.eval()(**batch.inputs()).logits
    loss: Tensor = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=-100)
    return loss


def gradients(model: nn.Module, batch: ProbeBatch) -> dict[str, np.ndarray]:
    model.zero_grad()
    loss_of(model, batch).backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.double().numpy() for name, p in model.named_parameters() if p.grad is not None}


def weights(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: p.detach().double().numpy() for name, p in model.named_parameters()}


def by_sample(model: nn.Module, batch: ProbeBatch) -> list[dict[str, np.ndarray]]:
    return [gradients(model, batch.take(i, i + 1)) for i in range(len(batch))]


def test_plain_and_grad_norm() -> None:
    model, batch = TinyMultimodal(), tiny_batch()
    grads, values = gradients(model, batch), weights(model)
    model.zero_grad()
    assert score("plain", model, batch) == pytest.approx(sum((g * values[n]).sum() for n, g in grads.items()), rel=1e-4)
    by_hand = sum(math.sqrt((g**2).sum()) for g in grads.values())
    assert score("grad-norm", model, batch) == pytest.approx(by_hand, rel=1e-5)


def test_grasp_against_a_finite_difference_of_the_gradient() -> None:
    model, batch = TinyMultimodal().double(), tiny_batch()
    batch = ProbeBatch(batch.pixel_values.double(), batch.input_ids, batch.attention_mask, batch.labels)
    start, step = gradients(model, batch), 1e-5

    def at(sign: int) -> dict[str, np.ndarray]:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.add_(torch.from_numpy(start[name]) * step * sign)
        found = gradients(model, batch)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.sub_(torch.from_numpy(start[name]) * step * sign)
        return found

    above, below, values = at(1), at(-1), weights(model)
    by_hand = -sum((values[name] * (above[name] - below[name]) / (2 * step)).sum() for name in start)
    model.zero_grad()
    assert score("grasp", model, batch) == pytest.approx(by_hand, rel=1e-4)


class OneLayer(nn.Module):
    """visual tokens -> a linear layer whose channels can be scaled for one sample -> cross entropy."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 5)
        generator = torch.Generator().manual_seed(3)
        self.layer.weight.data = torch.randn(5, 3, generator=generator)
        self.layer.bias.data = torch.randn(5, generator=generator)
        self.gain = torch.ones(4, 1, 5)

    def forward(self, *, input_ids: Tensor, labels: Tensor, pixel_values: Tensor, **_: object) -> TinyOutput:
        logits = self.layer(pixel_values.flatten(2).transpose(1, 2)) * self.gain
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        return TinyOutput(loss, logits)


def test_fisher_against_the_effect_of_scaling_each_channel_of_each_sample() -> None:
    """d loss / d gain of a channel is sum over positions of a * dL/da."""
    generator = torch.Generator().manual_seed(1)
    pixels, labels = torch.randn(4, 3, 2, 3, generator=generator), torch.randint(0, 5, (4, 6), generator=generator)
    batch = ProbeBatch(pixels, labels, torch.ones_like(labels), labels)
    model = OneLayer()
    by_hand, step = 0.0, 1e-4
    exact = OneLayer().double()
    for sample in range(4):
        for channel in range(5):
            found = []
            for sign in (1, -1):
                exact.gain = torch.ones(4, 1, 5, dtype=torch.float64)
                exact.gain[sample, 0, channel] += sign * step
                found.append(float(exact(input_ids=labels, labels=labels, pixel_values=pixels.double()).loss.detach()))
            by_hand += ((found[0] - found[1]) / (2 * step)) ** 2
    assert score("fisher", model, batch) == pytest.approx(by_hand / 8, rel=1e-4)


def test_zico_and_gradsign_over_samples() -> None:
    model, batch = TinyMultimodal(), tiny_batch()
    samples = by_sample(model, batch)
    model.zero_grad()
    expected, signs = 0.0, 0.0
    for name in samples[0]:
        stack = np.stack([sample[name] for sample in samples])
        signs += np.abs(np.sign(stack).sum(axis=0)).sum()
        mean, deviation = np.abs(stack).mean(axis=0), np.abs(stack).std(axis=0)
        varies = deviation > 1e-6 * mean
        if varies.any():
            expected += math.log((mean[varies] / deviation[varies]).sum())
    assert score("zico", model, batch) == pytest.approx(expected, rel=1e-3)
    # The sign of a gradient that is rounding noise around zero may differ between one sample alone and in a batch.
    assert score("gradsign", model, batch) == pytest.approx(signs, rel=2e-3)


def test_zico_of_one_sample_says_nothing() -> None:
    assert score("zico", TinyMultimodal(), tiny_batch(1)) == 0.0


def test_dss_from_singular_values() -> None:
    model, batch = TinyMultimodal(), tiny_batch()
    grads, values = gradients(model, batch), weights(model)
    model.zero_grad()
    expected = 0.0
    for name, grad in grads.items():
        if grad.ndim != 2:
            continue
        if "qkv" in name or ".out." in name:
            norms = [np.linalg.svd(matrix, compute_uv=False).sum() for matrix in (grad, values[name])]
            expected += norms[0] * norms[1]
        else:
            expected += (grad * values[name]).sum()
    assert score("dss", model, batch) == pytest.approx(expected, rel=1e-4)


def test_jacob_cov_from_the_full_jacobian() -> None:
    model, batch = TinyMultimodal().eval(), tiny_batch()
    tokens = model.encode_images(batch.pixel_values).detach()
    jacobian = torch.autograd.functional.jacobian(  # type: ignore[no-untyped-call]
        lambda x: model(inputs_embeds=x, logits_to_keep=1).logits.sum(dim=(1, 2)), tokens
    )
    rows = np.stack([jacobian[i, i].flatten().double().numpy() for i in range(len(batch))])
    values = np.linalg.eigvalsh(np.corrcoef(rows)) + 1e-5
    assert score("jacob-cov", model, batch) == pytest.approx(-(np.log(values) + 1 / values).sum(), rel=1e-3)


def test_zen_of_a_linear_map_is_the_length_of_the_mapped_noise() -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(3, 5).double()

        def encode_images(self, pixel_values: Tensor) -> Tensor:
            return pixel_values.flatten(2).transpose(1, 2).double()

        def forward(self, *, inputs_embeds: Tensor, logits_to_keep: int = 0) -> TinyOutput:
            return TinyOutput(None, self.map(inputs_embeds.mean(dim=1, keepdim=True)))

    model, batch = Linear(), tiny_batch()
    tokens = model.encode_images(batch.pixel_values)
    noise = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    deviations = tokens.flatten(1).std(dim=1).numpy()
    moved = (noise * deviations[:, None, None]).mean(axis=1) @ model.map.weight.detach().numpy().T * 0.01
    assert score("zen", model, batch) == pytest.approx(math.log(np.linalg.norm(moved, axis=1).mean()), rel=1e-6)


def test_near_from_singular_values_of_every_activation() -> None:
    model, batch = TinyMultimodal().eval(), tiny_batch()
    outputs: list[np.ndarray] = []
    ups = [module for name, module in model.named_modules() if name.endswith(".up")]
    handles = [
        up.register_forward_hook(
            lambda _m, _i, out: outputs.append(F.gelu(out.detach()).flatten(0, 1).double().numpy())
        )
        for up in ups
    ]
    with torch.no_grad():
        model(**batch.inputs())
    for handle in handles:
        handle.remove()
    expected = 0.0
    for rows in outputs:
        values = np.linalg.svd(rows, compute_uv=False)
        shares = values[values > 1e-6 * values[0]] / values[values > 1e-6 * values[0]].sum()
        expected += math.exp(-(shares * np.log(shares)).sum())
    assert len(outputs) == 3 and score("near", model, batch) == pytest.approx(expected, rel=1e-5)
