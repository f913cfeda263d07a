"""Compression, projectors, layer selection and encoders against numpy, hand counts and timm itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas.depth import kept_layers
from nas.model.compress import build_compressor
from nas.model.project import LdpV2, build_projector
from nas.model.vision import VisionEncoder
from search_spaces import catalogue


def tokens(side: int, width: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, side * side, width, generator=torch.Generator().manual_seed(0))


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize("factor", [4, 9, 36])
def test_average_pooling_is_the_mean_of_each_block(factor: int) -> None:
    compressor, width = build_compressor("avgpool", factor, 5)
    x, k = tokens(6, 5), math.isqrt(factor)
    grid = x.numpy().reshape(2, 6 // k, k, 6 // k, k, 5)
    assert width == 5
    np.testing.assert_allclose(compressor(x).numpy(), grid.mean((2, 4)).reshape(2, 36 // factor, 5), atol=1e-6)


@pytest.mark.parametrize("factor", [4, 9, 36])
def test_pixel_shuffle_moves_each_block_into_channels_and_loses_nothing(factor: int) -> None:
    compressor, width = build_compressor("pixel-shuffle", factor, 5)
    x, r = tokens(6, 5), math.isqrt(factor)
    blocks = x.numpy().reshape(2, 6 // r, r, 6 // r, r, 5).transpose(0, 1, 3, 5, 2, 4)
    assert width == 5 * factor
    np.testing.assert_array_equal(compressor(x).numpy(), blocks.reshape(2, 36 // factor, 5 * factor))


def test_no_compression_leaves_tokens_as_they_are() -> None:
    compressor, width = build_compressor("none", 1, 5)
    assert width == 5
    assert torch.equal(compressor(tokens(4, 5)), tokens(4, 5))


@pytest.mark.parametrize(("name", "params"), [("linear", 40), ("mlp", 112), ("pixel-shuffle", 120), ("ldp-v2", 192)])
def test_projectors_have_the_parameters_of_their_paper(name: str, params: int) -> None:
    projector = build_projector(name, 4, 8, 4)  # D = 4, H = 8
    assert sum(p.numel() for p in projector.parameters()) == params


def test_mlp_is_linear_gelu_linear() -> None:
    projector = build_projector("mlp", 4, 8, 1)
    w1, b1, w2, b2 = (p.detach().numpy() for p in projector.parameters())
    x = tokens(3, 4)
    expected = gelu(x.numpy() @ w1.T + b1) @ w2.T + b2
    np.testing.assert_allclose(projector(x).detach().numpy(), expected, atol=1e-5)


def test_shuffle_projector_normalises_first() -> None:
    projector = build_projector("pixel-shuffle", 4, 8, 4)
    x = tokens(3, 4)
    torch.testing.assert_close(projector(x), projector(3 * x + 7), atol=1e-3, rtol=1e-3)


def test_ldp_v2_is_mlp_then_pooling_then_depthwise_position_encoding() -> None:
    projector = LdpV2(4, 8, factor=4)
    w1, b1, w2, b2 = (p.detach().numpy() for p in projector.mlp.parameters())
    x = tokens(4, 4)
    wide = gelu(x.numpy() @ w1.T + b1) @ w2.T + b2
    pooled = wide.reshape(2, 2, 2, 2, 2, 8).mean((2, 4))  # (B, 2, 2, H)
    kernel, bias = projector.peg.weight.detach().numpy(), projector.peg.bias.detach().numpy()  # type: ignore[union-attr]
    padded = np.pad(pooled, ((0, 0), (1, 1), (1, 1), (0, 0)))
    convolved = sum(padded[:, i : i + 2, j : j + 2] * kernel[:, 0, i, j] for i in range(3) for j in range(3))
    expected = (pooled + convolved + bias).reshape(2, 4, 8)
    np.testing.assert_allclose(projector(x).detach().numpy(), expected, atol=1e-5)


@given(st.integers(1, 40).flatmap(lambda layers: st.tuples(st.just(layers), st.integers(1, layers))))
def test_uniform_layers_are_rising_and_hold_both_ends(sizes: tuple[int, int]) -> None:
    layers, depth = sizes
    spec = catalogue.language_model("smollm2-135m").model_copy(update={"layers": layers})
    kept = kept_layers("uniform", spec, depth)
    assert len(set(kept)) == depth
    assert kept == sorted(kept)
    assert kept[0] == 0
    assert kept[-1] == layers - 1 or depth == 1


@pytest.mark.parametrize("depth", [0, 31])
def test_depth_outside_the_model_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=r"lm_depth must be in 1..30"):
        kept_layers("uniform", catalogue.language_model("smollm2-135m"), depth)


@pytest.mark.parametrize("name", ["conv-micro", "efficientnet-lite0"])
def test_the_cut_cnn_gives_the_features_of_the_whole_one(name: str) -> None:
    import timm

    spec = catalogue.encoder(name)
    whole = timm.create_model(spec.timm, num_classes=0).eval()
    vision = VisionEncoder(spec, 64).eval()
    vision.backbone.load_state_dict({k: v for k, v in whole.state_dict().items() if k in vision.backbone.state_dict()})
    x = torch.randn(1, 3, 64, 64)
    features = whole.forward_intermediates(x, indices=[spec.feature_index], intermediates_only=True)[0]
    assert torch.equal(vision(x), features.flatten(2).transpose(1, 2))
