"""Proxies of the fit between encoder and language model, and of the compression between them, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from torch import Tensor, nn

import proxies
from proxies.batch import ProbeBatch, random_batch
from proxies.probing import read_out, sources
from proxies.testing import IMAGE_TOKEN, VOCABULARY, TinyMultimodal


class Pooled(TinyMultimodal):
    """The tiny model with 2 x 2 tokens averaged into one."""

    def project_tokens(self, tokens: Tensor) -> Tensor:
        side = round(tokens.shape[1] ** 0.5)
        grid = tokens.unflatten(1, (side // 2, 2, side // 2, 2)).mean(dim=(2, 4)).flatten(1, 2)
        projected: Tensor = self.projector(grid)
        return projected


def batch_of(size: int = 12, visual_tokens: int = 16) -> ProbeBatch:
    return random_batch(
        resolution=16, visual_tokens=visual_tokens, image_token_id=IMAGE_TOKEN, vocab=VOCABULARY, size=size
    )


def score(name: str, model: nn.Module, batch: ProbeBatch) -> float:
    return proxies.get(name).score(model, batch)


def images_and_texts(model: TinyMultimodal, batch: ProbeBatch) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        images = model.vision_tokens(batch.pixel_values).double().mean(1).numpy()
        texts = model.embedding(batch.input_ids[:, 16:]).double().mean(1).numpy()
    return images, texts


def cka(a: np.ndarray, b: np.ndarray) -> float:
    """Kornblith et al. 2019: HSIC with the centring matrix written out."""
    centre = np.eye(len(a)) - 1 / len(a)
    hsic = lambda x, y: np.trace(x @ x.T @ centre @ y @ y.T @ centre)  # noqa: E731
    return float(hsic(a, b) / np.sqrt(hsic(a, a) * hsic(b, b)))


def test_cka_with_the_centring_matrix() -> None:
    model, batch = TinyMultimodal().eval(), batch_of()
    assert score("cka", model, batch) == pytest.approx(cka(*images_and_texts(model, batch)), rel=1e-5)
    assert score("cka", model, batch_of(1)) == 0


def test_mutual_knn_by_sorting() -> None:
    model, batch = TinyMultimodal().eval(), batch_of()
    near = []
    for rows in images_and_texts(model, batch):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        likeness = unit @ unit.T - 9 * np.eye(len(unit))
        near.append([set(np.argsort(-row)[:6]) for row in likeness])
    expected = np.mean([len(a & b) / 6 for a, b in zip(*near, strict=True)])
    assert score("mutual-knn", model, batch) == pytest.approx(expected)


def test_gromov_wasserstein_is_the_cost_of_a_coupling_no_worse_than_the_independent_one() -> None:
    from ot.gromov import gromov_wasserstein

    model, batch = TinyMultimodal().eval(), batch_of()
    a, b = (np.linalg.norm(x[:, None] - x[None], axis=-1) for x in images_and_texts(model, batch))
    a, b = a / a.max(), b / b.max()
    cost = lambda p: float(np.einsum("ijkl,ik,jl->", (a[:, :, None, None] - b[None, None]) ** 2, p, p))  # noqa: E731
    found = score("gromov-wasserstein", model, batch)
    assert found == pytest.approx(cost(gromov_wasserstein(a, b)), rel=1e-4)
    assert 0 < found < cost(np.full((12, 12), 1 / 144))


def test_logme_is_the_highest_evidence_of_the_linear_model() -> None:
    model, batch = TinyMultimodal().eval(), batch_of(24)
    batch.labels[:, -1] = torch.arange(24) % 3
    with torch.no_grad():
        features = model.encode_images(batch.pixel_values).mean(1).double().numpy()
    evidences = []
    for answer in range(3):
        target = (np.arange(24) % 3 == answer).astype(float)

        def negative(logs: np.ndarray, target: np.ndarray = target) -> float:
            covariance = np.eye(24) * np.exp(-logs[1]) + features @ features.T * np.exp(-logs[0])
            return -float(multivariate_normal.logpdf(target, np.zeros(24), covariance))

        starts = [np.array([a, b]) for a in (-2.0, 2.0, 6.0) for b in (0.0, 2.0)]
        evidences.append(-min(minimize(negative, start, method="Nelder-Mead").fun for start in starts) / 24)
    assert score("logme", model, batch) == pytest.approx(np.mean(evidences), abs=2e-3)


def test_token_alignment_by_cosines() -> None:
    model, batch = TinyMultimodal().eval(), batch_of(3)
    with torch.no_grad():
        tokens = model.encode_images(batch.pixel_values).flatten(0, 1).numpy()
    words = model.embedding.weight.detach().numpy()
    lengths = np.linalg.norm(tokens, axis=1)[:, None] * np.linalg.norm(words, axis=1)[None]
    assert score("token-alignment", model, batch) == pytest.approx((tokens @ words.T / lengths).max(1).mean(), rel=1e-5)


def test_compression_cka_of_pooled_tokens() -> None:
    model, batch = Pooled().eval(), batch_of(3, visual_tokens=4)
    with torch.no_grad():
        before = model.vision_tokens(batch.pixel_values).double().numpy()
        after = model.encode_images(batch.pixel_values).double().numpy()
    spread = [np.kron(sample.reshape(2, 2, -1), np.ones((2, 2, 1))).reshape(16, -1) for sample in after]
    expected = np.mean([cka(a, b) for a, b in zip(before, spread, strict=True)])
    assert score("compression-cka", model, batch) == pytest.approx(expected, rel=1e-5)


def isometric() -> TinyMultimodal:
    model = TinyMultimodal().eval()
    nn.init.orthogonal_(model.projector.weight)
    return model


def test_nothing_is_lost_where_nothing_is_merged_or_bent() -> None:
    batch = batch_of(3)
    assert score("compression-cka", isometric(), batch) == pytest.approx(1, abs=1e-5)
    kept, merged = score("compression-gw", isometric(), batch), score("compression-gw", Pooled(), batch)
    assert kept == pytest.approx(0, abs=1e-6) and merged > 1e-3


def test_sources_by_grid_and_in_order() -> None:
    assert sources(16, 4).tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]
    assert sources(6, 3).tolist() == [0, 0, 1, 1, 2, 2]


def test_read_out_is_ridge_regression() -> None:
    from sklearn.linear_model import Ridge

    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(40, 60, generator=generator, dtype=torch.float64)
    targets = tokens[:, :2] * 3 + torch.randn(40, 2, generator=generator, dtype=torch.float64)
    x = tokens[::2] - tokens[::2].mean(0)
    ridge = Ridge(alpha=1e-2 * float(x.square().sum()) / 20).fit(tokens[::2].numpy(), targets[::2].numpy())
    missed = ((ridge.predict(tokens[1::2].numpy()) - targets[1::2].numpy()) ** 2).sum()
    spread = ((targets[1::2] - targets[1::2].mean(0)) ** 2).sum()
    assert read_out(tokens, targets) == pytest.approx(max(0.0, 1 - missed / float(spread)), rel=1e-6)
    assert read_out(torch.zeros(8, 3), torch.ones(8, 1)) == 0


class Told(TinyMultimodal):
    """Tokens that say where they are, and what colour is there."""

    def vision_tokens(self, pixel_values: Tensor) -> Tensor:
        colours = nn.functional.adaptive_avg_pool2d(pixel_values, 4).flatten(2).transpose(1, 2)
        places = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)).expand(len(pixel_values), -1, -1)
        return torch.cat([colours, places], dim=-1)

    def project_tokens(self, tokens: Tensor) -> Tensor:
        return tokens


def test_probes_read_what_is_there() -> None:
    batch = batch_of(8)
    assert score("position-probe", Told(), batch) > 0.9
    assert score("content-probe", Told(), batch) > 0.9
    assert score("position-probe", isometric(), batch) < 0.9
