"""Encoders outside of the catalogue: described by their exact name, or by the folder of a transformers config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModel,
    CLIPConfig,
    CLIPVisionConfig,
    ConvNextConfig,
    Dinov2Config,
    PreTrainedConfig,
    SiglipConfig,
    SiglipVisionConfig,
)

import search_spaces
from nas.cost_vision import encoder_params, vision_flops
from nas.errors import ConfigError
from nas.model import build
from nas.model.load import fill_encoder, read_encoder
from nas.model.vision import VisionEncoder
from search_spaces import Candidate, SpaceError, catalogue

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32}
CONFIGS = {
    "clip": CLIPVisionConfig(**SMALL, intermediate_size=64, patch_size=8),
    "siglip": SiglipVisionConfig(**SMALL, intermediate_size=64, patch_size=16),
    "dinov2": Dinov2Config(**SMALL, mlp_ratio=2, patch_size=14),
    "convnext": ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
}


def agrees(spec: catalogue.EncoderSpec, resolution: int, depth: int = 0) -> None:
    """Tokens, parameters and FLOPs of the built encoder are those of its entry."""
    with torch.device("meta"):
        vision = VisionEncoder(spec, resolution, depth).eval()
        images = torch.zeros(2, 3, resolution, resolution)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        assert vision(images).shape == (2, spec.tokens(resolution), spec.width)
    assert sum(weight.numel() for weight in vision.parameters()) == encoder_params(spec, resolution, depth)
    assert 2 * vision_flops(spec, resolution, depth) == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("name", ["vit_small_patch16_224", "resnet18", "vit_tiny_patch16_dinov3_qkvb", "repvit_m0_9"])
def test_any_timm_name_is_described(name: str) -> None:
    spec = catalogue.encoder(f"timm:{name}")
    agrees(spec, 6 * spec.stride)
    assert spec is catalogue.encoder(f"timm:{name}")


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_any_folder_with_a_transformers_vision_config_is_described(kind: str, tmp_path: Path) -> None:
    config: PreTrainedConfig = CONFIGS[kind]
    config.save_pretrained(tmp_path)
    spec = catalogue.encoder(f"hf:{tmp_path}")
    agrees(spec, 4 * spec.stride)
    if spec.family == "vit":
        assert (spec.layers, spec.heads, spec.ffn, spec.width) == (3, 2, 64, 32)
        agrees(spec, 4 * spec.stride, depth=2)


@pytest.mark.parametrize("name", ["vit-micro", "eva02-vitt14", "dinov3-vits16", "siglip-vitb16"])
def test_a_cut_encoder_costs_its_blocks(name: str) -> None:
    spec = catalogue.encoder(name)
    agrees(spec, 4 * spec.stride, depth=1)


def test_a_cut_encoder_gives_the_tokens_of_that_block_after_the_last_norm() -> None:
    spec = catalogue.encoder("vit-micro")
    whole, cut = VisionEncoder(spec, 64).eval(), VisionEncoder(spec, 64, depth=1).eval()
    missing = cut.load_state_dict(whole.state_dict(), strict=False)
    assert not missing.missing_keys
    x = torch.randn(1, 3, 64, 64)
    expected = whole.backbone.get_intermediate_layers(x, n=[0], norm=True)[0]
    assert torch.equal(cut(x), expected)


@pytest.mark.parametrize("name", ["siglip", "clip", "vit_small_patch14_reg4_dinov2"])
def test_weights_of_another_resolution_keep_the_positions_of_prefix_tokens_and_resample_the_rest(
    name: str, tmp_path: Path
) -> None:
    if name in CONFIGS:
        CONFIGS[name].save_pretrained(tmp_path)
    spec = catalogue.encoder(f"hf:{tmp_path}" if name in CONFIGS else f"timm:{name}")
    small, large = (VisionEncoder(spec, side * spec.stride, 1).eval() for side in (3, 6))
    report = fill_encoder(large, small.backbone.state_dict(), spec.prefix_tokens, "here")
    (position,) = report.resampled
    assert len(report.taken) == len(large.backbone.state_dict()) - 1
    assert not report.random
    given, found = (encoder.backbone.state_dict()[position].reshape(-1, spec.width) for encoder in (small, large))
    kept = len(given) - 9
    assert torch.equal(given[:kept], found[:kept])
    grids = [table[kept:].T.reshape(1, spec.width, side, side) for table, side in ((given, 3), (found, 6))]
    expected = F.interpolate(grids[0], size=(6, 6), mode="bicubic", antialias=True)
    torch.testing.assert_close(grids[1], expected, atol=1e-5, rtol=1e-4)


WHOLE = {"siglip": SiglipConfig, "clip": CLIPConfig}


@pytest.mark.parametrize("kind", ["siglip", "clip", "dinov2"])
def test_a_folder_with_weights_fills_the_encoder_with_transformers_own(kind: str, tmp_path: Path) -> None:
    """A CLIP holds its encoder; a DINOv2 is one. At the folder's own size, tokens are those of transformers."""
    torch.manual_seed(3)
    config: Any = CONFIGS[kind]
    if kind in WHOLE:
        text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = WHOLE[kind](vision_config=config.to_dict(), text_config=text)
    theirs = AutoModel.from_config(config).eval()  # type: ignore[no-untyped-call]
    theirs.save_pretrained(tmp_path)
    stride = CONFIGS[kind].patch_size
    design = Candidate(
        encoder=f"hf:{tmp_path}", resolution=stride * (32 // stride), projector="linear", compression="none",
        compression_factor=1, lm="llama-micro", lm_depth=1,
    )  # fmt: skip
    model = build(design)
    report, pixels = model.reports["encoder"], torch.randn(1, 3, design.resolution, design.resolution)
    assert not report.random and not report.resampled
    encoder = getattr(theirs, "vision_model", theirs)
    with torch.inference_mode():
        expected = encoder(pixel_values=pixels).last_hidden_state
        found = model.vision(pixels)
    torch.testing.assert_close(found, expected[:, expected.shape[1] - found.shape[1] :], atol=1e-6, rtol=1e-5)
    doubled = build(design.model_copy(update={"resolution": 2 * design.resolution}))
    assert len(doubled.reports["encoder"].resampled) == 1 and not doubled.reports["encoder"].random


def test_a_folder_of_another_encoder_is_refused(tmp_path: Path) -> None:
    AutoModel.from_config(CONFIGS["clip"]).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    spec = catalogue.encoder("hf:siglip_vision_model")
    with pytest.raises(ConfigError, match=r"weights must be of a siglip_vision_model, but .* holds clip_vision_model"):
        read_encoder(str(tmp_path), spec, hub=False)


def test_a_transformers_encoder_is_named_by_its_model_type() -> None:
    spec = catalogue.encoder("hf:siglip_vision_model")
    assert (spec.width, spec.layers, spec.stride) == (768, 12, 16)
    agrees(spec, 64, depth=2)
    with pytest.raises(SpaceError, match="did you mean 'dinov2'"):
        catalogue.encoder("hf:dinov22")


@pytest.mark.parametrize(
    "name", ["siglip", "clip", "dinov2", "vit-micro", "conv-micro", "eva02-vitt14", "siglip2-naflex-vitb16"]
)
def test_an_input_need_not_be_square(name: str, tmp_path: Path) -> None:
    if name in CONFIGS:
        CONFIGS[name].save_pretrained(tmp_path)
    spec = catalogue.encoder(f"hf:{tmp_path}" if name in CONFIGS else name)
    with torch.device("meta"):
        vision = VisionEncoder(spec, (2 * spec.stride, 4 * spec.stride), 1 if spec.family == "vit" else 0).eval()
        assert vision.grid == (2, 4)
        assert vision(torch.zeros(1, 3, *vision.size)).shape == (1, 8, spec.width)


def test_positions_of_a_square_are_resampled_to_what_is_not() -> None:
    spec = catalogue.encoder("timm:vit_small_patch14_reg4_dinov2")
    square, wide = VisionEncoder(spec, 56, 1), VisionEncoder(spec, (28, 84), 1)
    report = fill_encoder(wide, square.backbone.state_dict(), spec.prefix_tokens, "here")
    assert report.resampled == ["pos_embed"] and not report.random


def test_weights_of_training_fill_the_merged_form() -> None:
    spec = catalogue.encoder("fastvit-t8")
    trained = VisionEncoder(spec.model_copy(update={"timm_args": {}}), 64).eval()
    for module in trained.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    merged = VisionEncoder(spec, 64).eval()
    report = fill_encoder(merged, trained.backbone.state_dict(), 0, "here")
    assert not report.random
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(merged(pixels), trained(pixels), atol=1e-3, rtol=1e-3)


def test_an_unknown_architecture_names_the_near_miss_and_a_folder_without_config_its_file(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="no timm architecture named 'vit_smal_patch16_224'; did you mean 'vit_small"):
        catalogue.encoder("timm:vit_smal_patch16_224")
    with pytest.raises(SpaceError, match=r"needs .*config\.json"):
        catalogue.encoder(f"hf:{tmp_path}")


def test_a_space_may_name_an_encoder_that_has_no_entry() -> None:
    space = search_spaces.load("micro", {"encoder": ["vit-micro", "timm:vit_tiny_patch16_224"], "resolution": [112]})
    assert {candidate.encoder for candidate in space.candidates} == {"vit-micro", "timm:vit_tiny_patch16_224"}
    with pytest.raises(SpaceError, match="did you mean 'vit_tiny_patch16_224'"):
        search_spaces.load("micro", {"encoder": ["vit-micro", "timm:vit_tiny_patch16_22"]})


def test_an_encoder_whose_tokens_are_no_square_grid_is_refused() -> None:
    with pytest.raises(SpaceError, match="gives no square grid of tokens"):
        catalogue.encoder("timm:hiera_tiny_224")
