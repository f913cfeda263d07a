"""Activation proxies against numpy on what hooks of this test saw of the tiny model."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import proxies
from proxies.batch import ProbeBatch
from proxies.testing import TinyMultimodal, tiny_batch


def score(name: str, model: nn.Module, batch: ProbeBatch) -> float:
    return proxies.get(name).score(model, batch)


def seen(model: TinyMultimodal, batch: ProbeBatch, *, read: str = "out", of: str = "blocks") -> list[np.ndarray]:
    """(rows, channels) in or out of every decoder layer, or of its part named so."""
    found: list[Tensor] = []
    parts = list(model.blocks) if of == "blocks" else [getattr(block, of) for block in model.blocks]
    handles = [
        part.register_forward_hook(lambda _m, given, out: found.append(out if read == "out" else given[0]))
        for part in parts
    ]
    with torch.no_grad():
        model.eval()(**batch.inputs())
    for handle in handles:
        handle.remove()
    return [tensor.flatten(0, 1).double().numpy() for tensor in found]


def entropy(rows: np.ndarray) -> float:
    values = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2
    shares = values[values > 1e-12 * values[0]] / values.sum()
    return float(-(shares * np.log(shares)).sum())


def test_swap_counts_columns() -> None:
    model, batch = TinyMultimodal().eval(), tiny_batch()
    codes = []
    blocks = [model.vision, *model.blocks]
    handles = [
        block.up.register_forward_hook(lambda _m, _i, out: codes.append((out > 0).flatten(1).numpy()))
        for block in blocks
    ]
    with torch.no_grad():
        model(**batch.inputs())
    for handle in handles:
        handle.remove()
    columns = {tuple(column) for code in codes for column in code.T}
    assert score("swap", model, batch) == len(columns) <= 2**4


def test_meco_from_corrcoef() -> None:
    model, batch = TinyMultimodal(), tiny_batch()
    expected = 0.0
    for rows in seen(model, batch):
        picked = rows.T[np.linspace(0, 15, 8).round().astype(int)]
        expected += 16 / 8 * np.linalg.eigvalsh(np.corrcoef(picked))[0]
    assert score("meco", model, batch) == pytest.approx(expected, rel=1e-6)


def test_az_nas_parts() -> None:
    model, batch = TinyMultimodal(depth=3), tiny_batch()
    entropies = [entropy(rows) for rows in seen(model, batch)]
    assert score("az-expressivity", model, batch) == pytest.approx(sum(entropies), rel=1e-6)
    steps = [b - a for a, b in pairwise(entropies)]
    assert score("az-progressivity", model, batch) == pytest.approx(min(steps), rel=1e-5)
    assert score("az-progressivity", TinyMultimodal(depth=1), batch) == 0


def test_az_trainability_from_each_blocks_own_vector_jacobian_product() -> None:
    model, batch = TinyMultimodal().eval(), tiny_batch()
    inputs: list[Tensor] = []
    handles = [block.register_forward_pre_hook(lambda _m, given: inputs.append(given[0])) for block in model.blocks]
    with torch.no_grad():
        model(**batch.inputs())
    for handle in handles:
        handle.remove()
    terms = []
    for layer, (block, given) in enumerate(zip(model.blocks, inputs, strict=True)):
        signs = torch.randint(0, 2, given.shape, generator=torch.Generator().manual_seed(layer)).float() * 2 - 1
        _, back = torch.autograd.functional.vjp(block, given, signs)  # type: ignore[no-untyped-call]
        outer = np.einsum("ni,nj->ij", back.flatten(0, 1).numpy(), signs.flatten(0, 1).numpy())
        size = np.linalg.svd(outer / (given.shape[0] * given.shape[1]), compute_uv=False)[0]
        terms.append(2 - size - 1 / size)
    assert score("az-trainability", model, batch) == pytest.approx(np.mean(terms), rel=1e-5)


def test_w_pca_counts_components() -> None:
    from sklearn.decomposition import PCA

    model, batch = TinyMultimodal(), tiny_batch()
    dimensions = 0
    for rows in seen(model, batch, read="in", of="down"):
        held = np.cumsum(PCA().fit(rows).explained_variance_ratio_)
        dimensions += int(np.argmax(held >= 0.99)) + 1
    params = sum(parameter.numel() for parameter in model.parameters())
    assert score("w-pca", model, batch) == dimensions * params


def attention_by_hand(block: nn.Module, given: Tensor) -> tuple[Tensor, Tensor]:
    """(B, heads, T, T) probabilities and (B, heads, T, d) outputs, by loops over positions."""
    query, key, value = block.qkv(block.norm1(given)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
    length = query.shape[2]
    shares = torch.zeros(*query.shape[:3], length)
    for place in range(length):
        last = place + 1 if block.causal else length
        raw = (query[:, :, place : place + 1] * key[:, :, :last]).sum(-1) / math.sqrt(query.shape[-1])
        shares[:, :, place, :last] = raw.exp() / raw.exp().sum(-1, keepdim=True)
    return shares, shares @ value


def test_attention_and_softmax_confidence_by_hand() -> None:
    model, batch = TinyMultimodal().eval(), tiny_batch()
    blocks, sizes, sharpest = [model.vision, *model.blocks], [], []
    handles = [block.register_forward_pre_hook(lambda m, given: found.append((m, given[0]))) for block in blocks]
    found: list[tuple[nn.Module, Tensor]] = []
    with torch.no_grad():
        model(**batch.inputs())
        for block, given in list(found):
            shares, mixed = attention_by_hand(block, given)
            first = 1 if block.causal else 0  # the first position sees itself alone
            sharpest.append(shares[:, :, first:].amax(dim=(-2, -1)).numpy())
            sizes.append(mixed.abs().amax(dim=(-2, -1)).numpy())
    for handle in handles:
        handle.remove()
    assert score("softmax-confidence", model, batch) == pytest.approx(np.concatenate(sharpest, 1).mean(), rel=1e-5)
    assert score("attention-confidence", model, batch) == pytest.approx(np.concatenate(sizes, 1).mean(), rel=1e-5)


def test_block_influence_from_angles() -> None:
    model, batch = TinyMultimodal(), tiny_batch()
    expected = 0.0
    for before, after in zip(seen(model, batch, read="in"), seen(model, batch), strict=True):
        angles = (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
        expected += 1 - angles.mean()
    assert score("block-influence", model, batch) == pytest.approx(expected, rel=1e-6)


def test_block_influence_leaves_padding_out() -> None:
    model, batch = TinyMultimodal(), tiny_batch()
    whole = score("block-influence", model, batch)
    batch.attention_mask[:, -3:] = 0
    assert score("block-influence", model, batch) != pytest.approx(whole, rel=1e-6)


def test_calibration_loss_from_the_logits() -> None:
    model, batch = TinyMultimodal().eval(), tiny_batch()
    with torch.no_grad():
        logits = model(**batch.inputs()).logits
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=-100)
    assert score("calibration-loss", model, batch) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [("depth", 2), ("width", 16), ("depth-width", 32), ("depth-width2", 512), ("visual-tokens", 4),
     ("rank-budget", 2 * (16 + 16 + 16 + 16)), ("kv-bytes", 10 * 2 * (16 + 16) * 4)],
)  # fmt: skip
def test_structure_is_counted(name: str, value: int) -> None:
    assert score(name, TinyMultimodal(), tiny_batch()) == value
