"""Tiles, scales, two encoders and frames: what is seen, in which order, and that token counts follow."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import nas.workload
from nas.cost import cost
from nas.cost_vision import views
from nas.export import export_hf, load_export
from nas.model import Processor, build
from nas.model.tiles import cut, tile_grid
from nas.model.views import MultiView
from nas.quality.score import probe_batch, score
from search_spaces import Candidate
from search_spaces.rules import buildable

WORKLOAD = nas.workload.load("vqa-short")
BASE: dict[str, Any] = {
    "encoder": "vit-micro", "resolution": 64, "projector": "mlp", "compression": "none", "compression_factor": 1,
    "lm": "llama-micro", "lm_depth": 1,
}  # fmt: skip
DESIGNS: list[dict[str, Any]] = [
    {"tiling": "grid", "tiles": 4},
    {"tiling": "any-resolution", "tiles": 3, "compression": "avgpool", "compression_factor": 4},
    {"tiling": "s2", "tiles": 2},
    {"second_encoder": "conv-micro", "fusion": "channel"},
    {"second_encoder": "conv-micro", "fusion": "sequence", "projector": "q-former"},
    {"second_encoder": "vit-micro", "fusion": "channel", "tiling": "s2", "tiles": 3, "projector": "ldp"},
    {"second_encoder": "conv-micro", "fusion": "sequence", "tiling": "grid", "tiles": 2, "projector": "c-abstractor"},
    {"tiling": "grid", "tiles": 2, "compression": "visionzip", "compression_factor": 2},
    {"compression": "prumerge", "compression_factor": 4, "encoder_depth": 1},
    {"compression": "tome", "compression_factor": 2, "projector": "mlp-3", "tiling": "s2", "tiles": 2},
]


def design(**changes: Any) -> Candidate:
    candidate = Candidate(**{**BASE, **changes})
    assert buildable(candidate) is None
    return candidate


def picture(width: int = 80, height: int = 40) -> Image.Image:
    return Image.effect_noise((width, height), 60).convert("RGB")


@pytest.mark.parametrize("changes", DESIGNS, ids=str)
def test_a_design_costs_what_is_counted_and_runs_on_what_its_processor_makes(changes: dict[str, Any]) -> None:
    candidate = design(**changes)
    model, processor = build(candidate, weights="random"), Processor.of(candidate)
    pixels, ids = processor.pixels([picture()]), torch.tensor([processor.prompt("What?")])
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as counter:
            visual = model.encode_images(pixels)
        logits = model(input_ids=ids, pixel_values=pixels).logits
        cached = model(input_ids=ids, vision_features=model.vision_tokens(pixels)).logits
    bill = cost(candidate, WORKLOAD)
    assert visual.shape == (1, model.visual_tokens, 64)
    assert bill.visual_tokens == processor.visual_tokens == model.visual_tokens
    assert bill.params == sum(weight.numel() for weight in model.parameters())
    assert bill.vision_flops + bill.projector_flops == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert torch.isfinite(logits).all()
    assert torch.equal(cached, logits)
    batch = probe_batch(model, 0)
    with torch.inference_mode():
        assert model(**batch.inputs()).logits.shape[:2] == batch.input_ids.shape


PROJECTORS = ("mlp", "perceiver", "pixel-shuffle", "d-abstractor", "token-packer", "cross-attention")


def test_any_allowed_combination_of_views_makes_the_tokens_that_are_counted() -> None:
    generator, seen = random.Random(11), 0
    while seen < 25:
        tiling = generator.choice(["none", "grid", "any-resolution", "s2"])
        second = generator.choice(["none", "conv-micro", "vit-micro"])
        compression = generator.choice(["none", "avgpool", "tome", "visionzip", "queries", "pixel-shuffle"])
        candidate = Candidate(**{
            **BASE, "encoder": generator.choice(["vit-micro", "conv-micro"]), "compression": compression,
            "compression_factor": 1 if compression == "none" else 4, "tiling": tiling,
            "projector": generator.choice(PROJECTORS),
            "tiles": 1 if tiling == "none" else generator.choice([2, 3]), "second_encoder": second,
            "fusion": "none" if second == "none" else generator.choice(["channel", "sequence"]),
        })  # fmt: skip
        if buildable(candidate):
            continue
        seen += 1
        with torch.device("meta"), torch.inference_mode():
            model = build(candidate, weights="random")
            assert model.encode_images(torch.zeros(2, views(candidate), 3, 64, 64)).shape == (
                2,
                model.visual_tokens,
                64,
            )
        assert cost(candidate, WORKLOAD).params == model.num_parameters()


def test_tiles_are_the_picture_in_raster_order_behind_its_thumbnail() -> None:
    image = picture(128, 64)
    found = cut(image, "grid", 2, 64)
    assert [view.size for view in found] == [(64, 64)] * 3
    assert found[1].tobytes() == image.crop((0, 0, 64, 64)).tobytes()
    assert found[2].tobytes() == image.crop((64, 0, 128, 64)).tobytes()
    assert found[0].tobytes() == image.resize((64, 64), Image.Resampling.BICUBIC).tobytes()


def test_any_resolution_takes_transformers_llava_next_grid() -> None:
    from transformers.image_processing_utils import select_best_resolution

    pinpoints = [[r * 64, c * 64] for r in range(1, 5) for c in range(1, 4 // r + 1)]
    for size in [(64, 64), (200, 100), (100, 200), (128, 128), (500, 90), (300, 310), (40, 30)]:
        height, width = select_best_resolution((size[1], size[0]), pinpoints)
        assert tile_grid(size, "any-resolution", 4, 64, fit=True) == (height // 64, width // 64)
    assert tile_grid((40, 30), "any-resolution", 4, 64) in {(2, 2), (1, 4)}
    assert tile_grid((30, 400), "any-resolution", 4, 64) == (4, 1)


def test_a_small_picture_takes_fewer_tiles_and_the_prompt_follows() -> None:
    candidate = design(tiling="any-resolution", tiles=4)
    model, processor = build(candidate, weights="random"), Processor.of(candidate)
    small, wide = picture(60, 60), picture(256, 64)
    assert [processor.fitted_tokens(image) for image in (small, wide)] == [2 * 16, 5 * 16]
    for image in (small, wide):
        ids = torch.tensor([processor.prompt("What?", processor.fitted_tokens(image))])
        with torch.inference_mode():
            model(input_ids=ids, pixel_values=processor.pixels([image], fit=True))
    flat = processor.pixels([small, wide], fit=True)
    assert flat.shape == (7, 3, 64, 64)
    with torch.inference_mode():
        assert model.encode_images(flat).shape == (7, 16, 64)


def test_each_tile_is_encoded_by_itself() -> None:
    model = build(design(tiling="grid", tiles=2), weights="random")
    pixels = torch.randn(2, 3, 3, 64, 64)
    with torch.inference_mode():
        together = model.vision_tokens(pixels).reshape(2, 3, 16, 64)
        alone = model.vision.encoders[0](pixels[1, 2:])
    torch.testing.assert_close(together[1, 2:], alone, atol=1e-5, rtol=1e-4)


def test_scales_are_stitched_and_brought_to_the_grid_by_area() -> None:
    model = build(design(tiling="s2", tiles=2), weights="random")
    pixels = torch.randn(1, 5, 3, 64, 64)
    with torch.inference_mode():
        found = model.vision_tokens(pixels)
        crops = model.vision.encoders[0](pixels[0])
    torch.testing.assert_close(found[0, :, :64], crops[0], atol=1e-5, rtol=1e-4)
    large = torch.zeros(8, 8, 64)
    for index in range(4):
        row, column = divmod(index, 2)
        large[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = crops[1 + index].reshape(4, 4, 64)
    pooled = large.reshape(4, 2, 4, 2, 64).mean((1, 3)).reshape(16, 64)
    torch.testing.assert_close(found[0, :, 64:], pooled, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fusion", ["channel", "sequence"])
def test_both_encoders_see_the_image_as_each_was_trained_to(fusion: str) -> None:
    model = build(design(second_encoder="conv-micro", fusion=fusion), weights="random")
    assert isinstance(model.vision, MultiView) and model.vision.second is not None
    second = model.vision.second
    second.spec = second.spec.model_copy(update={"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)})
    raw = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    with torch.inference_mode():
        found = model.vision_tokens((raw - 0.5) / 0.5)
        own, other = model.vision.first((raw - 0.5) / 0.5), second((raw - mean) / std)
    if fusion == "channel":
        expected = torch.cat([own, other], -1)
    else:
        expected = torch.zeros(1, 32, 96)
        expected[:, :16, :64], expected[:, 16:, 64:] = own, other
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_frames_of_a_video_become_fewer_sets_of_tokens() -> None:
    model = build(design(temporal_factor=2), weights="random")
    with torch.inference_mode():
        assert model.encode_images(torch.randn(1, 6, 3, 64, 64)).shape == (1, 3 * 16, 64)
        assert model.encode_images(torch.randn(1, 3, 64, 64)).shape == (1, 16, 64)


def test_an_exported_design_of_many_views_reloads_without_any_difference(tmp_path: Path) -> None:
    candidate = design(
        tiling="grid", tiles=2, second_encoder="conv-micro", fusion="channel", projector="q-former",
        compression="queries", compression_factor=4,
    )  # fmt: skip
    model = build(candidate, weights="random")
    assert export_hf(model, Processor.of(candidate), tmp_path / "export", card={}) == 0
    again, processor = load_export(tmp_path / "export")
    assert processor.pixels([picture()]).shape == (1, 3, 3, 64, 64)
    assert again.visual_tokens == processor.visual_tokens == 12


@pytest.mark.parametrize("changes", [DESIGNS[0], DESIGNS[3], DESIGNS[8]], ids=str)
def test_proxies_score_a_design_and_leave_it_as_found(changes: dict[str, Any]) -> None:
    model = build(design(**changes), weights="random")
    before = [tensor.clone() for tensor in model.state_dict().values()]
    found = score(
        model, probe_batch(model, 0), ("params", "flops", "visual-tokens", "effective-rank", "synflow", "snip")
    )
    assert all(one.value is not None for one in found.values()), found
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))


def test_a_view_costs_all_encoders() -> None:
    one, two = (cost(each, WORKLOAD) for each in (design(), design(second_encoder="vit-micro", fusion="channel")))
    assert two.vision_flops == 2 * one.vision_flops
    assert two.encoder_params == 2 * one.encoder_params
    assert two.activation_bytes == one.activation_bytes  # one encoder after the other
