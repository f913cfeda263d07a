"""ToMe: merging is that of the paper, inside of an encoder's blocks and behind it, and costs what is counted."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import erf, softmax
from torch.utils.flop_counter import FlopCounterMode

import search_spaces
from nas.cost_vision import merging_lengths, vision_flops
from nas.model import MultimodalLM, build
from nas.model.merging import TokenMerging
from nas.model.vision import VisionEncoder
from search_spaces import Candidate, catalogue
from search_spaces.rules import buildable

Array = NDArray[np.float64]
GENERATOR = torch.Generator().manual_seed(0)


def designed(**changes: Any) -> Candidate:
    baseline = search_spaces.load("micro").baseline
    merging = {"resolution": 96, "compression": "tome-blocks", "compression_factor": 3}
    return Candidate.model_validate({**baseline, **merging, **changes})


def strongest_ties(metric: Array, count: int) -> dict[int, int]:
    """Token of A -> the token of B that it merges into, for the `count` strongest ties."""
    unit = metric / np.linalg.norm(metric, axis=1, keepdims=True)
    scores = unit[::2] @ unit[1::2].T
    chosen = np.argsort(-scores.max(1), kind="stable")[:count]
    return {2 * int(a): 2 * int(scores[a].argmax()) + 1 for a in chosen}


def merged_by_hand(x: Array, left: int) -> Array:
    """Bipartite soft matching of one picture, with lists of members."""
    groups: list[list[int]] = [[index] for index in range(len(x))]
    while len(groups) > left:
        mean = np.stack([x[group].mean(0) for group in groups])
        ties = strongest_ties(mean, min(len(groups) // 2, len(groups) - left))
        for a, b in ties.items():
            groups[b] += groups[a]
        groups = [group for index, group in enumerate(groups) if index not in ties]
    return np.stack([x[group].mean(0) for group in groups])


@pytest.mark.parametrize("factor", [2, 3, 9])
def test_token_merging_is_bipartite_soft_matching(factor: int) -> None:
    x = torch.randn(2, 36, 8, generator=GENERATOR, dtype=torch.float64)
    expected = np.stack([merged_by_hand(picture, 36 // factor) for picture in x.numpy()])
    np.testing.assert_allclose(TokenMerging(factor)(x).numpy(), expected, atol=1e-9)


def vit_by_hand(state: dict[str, Array], image: Array, heads: int, taken: list[int]) -> Array:
    """A ViT on one picture, `taken` tokens merged in each block; no tensor is sliced by anything but lists."""

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6)
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(x: Array, name: str) -> Array:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    side = image.shape[1] // 16
    kernel = state["patch_embed.proj.weight"].reshape(-1, 3 * 16 * 16)
    patches = [
        kernel @ image[:, 16 * r : 16 * r + 16, 16 * c : 16 * c + 16].reshape(-1)
        for r in range(side)
        for c in range(side)
    ]
    x = (
        np.stack([state["cls_token"][0, 0], *(np.array(patches) + state["patch_embed.proj.bias"])])
        + state["pos_embed"][0]
    )
    sizes = [1.0] * len(x)
    for index, count in enumerate(taken):
        name = f"blocks.{index}"
        q, k, v = np.split(linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv"), 3, axis=1)
        width = q.shape[1] // heads
        parts = [slice(head * width, (head + 1) * width) for head in range(heads)]
        mixed = [softmax(q[:, p] @ k[:, p].T / width**0.5 + np.log(sizes), axis=1) @ v[:, p] for p in parts]
        x = x + linear(np.concatenate(mixed, axis=1), f"{name}.attn.proj")
        keys = sum((k[1:, p] for p in parts), np.zeros((len(x) - 1, width))) / heads
        ties = {a + 1: b + 1 for a, b in strongest_ties(keys, count).items()}  # behind the class token
        rows, weights = [], []
        for token in (token for token in range(len(x)) if token not in ties):
            members = [token, *(a for a, b in ties.items() if b == token)]
            weights.append(sum(sizes[member] for member in members))
            rows.append(sum((sizes[member] * x[member] for member in members), np.zeros(x.shape[1])) / weights[-1])
        x, sizes = np.stack(rows), weights
        hidden = linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
        x = x + linear(hidden * (1 + erf(hidden / 2**0.5)) / 2, f"{name}.mlp.fc2")
    assert sum(sizes) == side**2 + 1
    return norm(x, "norm")[1:]


@pytest.mark.parametrize("factor", [2, 3])
def test_merging_in_blocks_is_that_of_the_paper(factor: int) -> None:
    spec = catalogue.encoder("vit-micro")
    vision = VisionEncoder(spec, 96, compression="tome-blocks", factor=factor).double().eval()
    with torch.no_grad():
        for weight in vision.parameters():  # keys of real spread: timm's are nearly all alike
            weight.add_(0.2 * torch.randn(weight.shape, generator=GENERATOR, dtype=torch.float64))
    images = torch.randn(2, 3, 96, 96, generator=GENERATOR, dtype=torch.float64)
    state = {name: tensor.numpy() for name, tensor in vision.backbone.state_dict().items()}
    lengths = merging_lengths(36, 2, factor)
    taken = [before - after for before, after in pairwise(lengths)]
    with torch.inference_mode():
        found = vision(images).numpy()
    assert found.shape == (2, 36 // factor, 64)
    for picture, tokens in zip(images.numpy(), found, strict=True):
        np.testing.assert_allclose(tokens, vit_by_hand(state, picture, 2, taken), atol=1e-8)


@pytest.mark.parametrize(
    ("name", "resolution", "depth", "factor"),
    [("dinov2-vits14", 224, 0, 4), ("dinov2-vits14", 112, 5, 2), ("dinov2-reg-vits14", 168, 0, 9),
     ("siglip-vitb16", 224, 0, 7), ("aimv2-vitl14", 224, 0, 16), ("vit-micro", 64, 1, 2)],
)  # fmt: skip
def test_flops_of_merging_blocks_are_those_that_are_counted(
    name: str, resolution: int, depth: int, factor: int
) -> None:
    spec = catalogue.encoder(name)
    with torch.device("meta"):
        vision = VisionEncoder(spec, resolution, depth, "tome-blocks", factor).eval()
        images = torch.zeros(2, 3, resolution, resolution)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        assert vision(images).shape == (2, spec.tokens(resolution, factor), spec.width)
    expected = 2 * vision_flops(spec, resolution, depth, factor)
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert expected < 2 * vision_flops(spec, resolution, depth)


def test_a_block_that_may_merge_never_takes_more_than_half_of_its_tokens() -> None:
    for patches in (16, 36, 49, 64, 256, 576, 1024):
        for blocks in range(1, 41):
            for factor in (factor for factor in range(2, blocks + 2) if patches % factor == 0):
                lengths = merging_lengths(patches, blocks, factor)
                assert (lengths[0], lengths[-1], len(lengths)) == (patches, patches // factor, blocks + 1)
                assert all(0 <= before - after <= -(-before // 2) for before, after in pairwise(lengths))


def test_what_cannot_merge_is_told() -> None:
    assert buildable(designed()) is None
    for changes in ({"compression_factor": 4}, {"encoder_depth": 1}, {"encoder": "conv-micro"},
                    {"encoder": "eva02-vitt14", "resolution": 84}):  # fmt: skip
        assert "tokens merge in plain blocks of a vision transformer" in str(buildable(designed(**changes)))
    assert "pruned tokens are no grid" in str(buildable(designed(tiling="s2", tiles=2)))


@pytest.mark.parametrize("changes", [{}, {"tiling": "grid", "tiles": 2}], ids=str)
def test_a_design_that_merges_in_blocks_takes_the_encoders_own_weights_and_reloads(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    model = build(designed(**changes), weights="random")
    plain = VisionEncoder(model.encoder_spec, 96)
    assert list(plain.state_dict()) == list(model.vision.encoders[0].state_dict())
    model.save_pretrained(tmp_path)
    again = MultimodalLM.from_pretrained(tmp_path).eval()
    views = 3 if changes else 1
    pixels = torch.randn(1, views, 3, 96, 96, generator=GENERATOR)
    with torch.inference_mode():
        visual = model.encode_images(pixels)
        assert visual.shape[1] == views * 12 == model.visual_tokens
        assert torch.equal(again.encode_images(pixels), visual)
