"""Our assembled model against transformers' own classes with the same weights, and against ONNX Runtime and GGUF."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.errors import ConfigError, MissingPackageError
from nas.export import export_hf, load_export
from nas.export_executorch import export_executorch
from nas.export_gguf import export_gguf
from nas.export_onnx import export_onnx
from nas.export_transformers import export_form, form_difference, to_fastvlm, to_idefics3, to_llava
from nas.model import MultimodalConfig, MultimodalLM, Processor, build
from nas.model.made_tokenizers import byte_tokenizer
from search_spaces import catalogue
from search_spaces.candidate import Candidate

BASE: dict[str, Any] = {
    "encoder": "vit-micro", "resolution": 64, "projector": "mlp", "compression": "none", "compression_factor": 1,
    "lm": "llama-micro", "lm_depth": 2,
}  # fmt: skip
CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "image_size": 64, "patch_size": 16,
}  # fmt: skip


def assembled(encoder: dict[str, Any], lm: str = "llama-micro", **changes: Any) -> MultimodalLM:
    """A model of parts that the catalogue does not hold, with random weights."""
    spec = catalogue.encoder("vit-micro").model_copy(update={"name": "reference", **encoder})
    language = catalogue.language_model(lm)
    if language.vocab > 264:
        head = 128 if language.architecture == "qwen3" else 16
        language = language.model_copy(
            update={"hidden": 64, "heads": 4, "kv_heads": 2, "head_dim": head, "ffn": 96, "vocab": 264, "layers": 2}
        )
    config = MultimodalConfig(
        candidate=Candidate(**{**BASE, "lm": lm, **changes}).to_dict(),
        encoder=spec.model_dump(mode="json"), language_model=language.model_dump(mode="json"),
    )  # fmt: skip
    torch.manual_seed(0)
    model = MultimodalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * (0.2 if weight.ndim == 1 else weight[0].numel() ** -0.5))
    model.train(False)
    return model


def processor_of(model: MultimodalLM) -> Processor:
    spec = model.encoder_spec
    return Processor(
        model.candidate.resolution, list(spec.mean), list(spec.std), 4, model.visual_tokens, byte_tokenizer()
    )


def inputs(model: MultimodalLM) -> tuple[torch.Tensor, torch.Tensor]:
    side = model.candidate.resolution
    generator = torch.Generator().manual_seed(1)
    ids = torch.tensor([[1, *[4] * model.visual_tokens, 70, 80, 90, 2]])
    return ids, torch.randn(1, 3, side, side, generator=generator)


def test_llava_has_our_logits() -> None:
    clip = {"timm": "", "timm_args": {}, "transformers": CLIP, "width": 32}
    model = assembled(clip)
    assert form_difference(model, to_llava(model), *inputs(model)) == 0


def test_idefics3_has_our_logits() -> None:
    """The form of SmolVLM: SigLIP, pixel shuffle and one matrix; our bias goes into the encoder's last norm."""
    siglip = {
        "timm": "vit_base_patch16_siglip_224", "width": 64, "prefix_tokens": 0,
        "timm_args": {"embed_dim": 64, "depth": 2, "num_heads": 2, "mlp_ratio": 2}, "ffn": 128,
    }  # fmt: skip
    model = assembled(siglip, projector="linear", compression="pixel-shuffle", compression_factor=4)
    assert bool((model.projector.bias != 0).all())
    assert form_difference(model, to_idefics3(model), *inputs(model)) < 5e-6
    with torch.no_grad():
        model.projector.bias.zero_()
    theirs, (ids, pixels) = to_idefics3(model), inputs(model)
    assert form_difference(model, theirs, ids, pixels) < 5e-6
    # Another order of the same sums: the shuffled channels. In double precision nothing of it is left.
    assert form_difference(model.double(), theirs.double(), ids, pixels.double()) < 1e-12


def test_fastvlm_has_our_logits() -> None:
    cnn = {
        "family": "cnn", "timm": "fastvit_t8", "timm_args": {"inference_mode": True}, "width": 768, "stride": 32,
        "prefix_tokens": 0, "layers": None, "ffn": None, "heads": None, "flops_per_pixel": 1.0,
        "activation_bytes_per_pixel": 1.0, "block_params": 0,
    }  # fmt: skip
    model = assembled(cnn, lm="qwen2.5-0.5b")
    assert form_difference(model, to_fastvlm(model), *inputs(model)) == 0


def test_a_converted_folder_is_loaded_by_transformers_alone(tmp_path: Path) -> None:
    model = assembled({"timm": "", "timm_args": {}, "transformers": CLIP, "width": 32})
    assert export_form(model, processor_of(model), tmp_path / "llava", "llava") == 0
    from transformers import AutoTokenizer, LlavaForConditionalGeneration

    assert type(LlavaForConditionalGeneration.from_pretrained(tmp_path / "llava")) is LlavaForConditionalGeneration
    assert AutoTokenizer.from_pretrained(tmp_path / "llava").chat_template


def test_parts_without_such_a_form_are_refused_in_one_line() -> None:
    model = build(Candidate(**BASE), weights="random")
    with pytest.raises(
        ConfigError, match=r"--format llava: the encoder must be one of transformers that sees, .* use --format hf"
    ):
        to_llava(model)
    normed = {"timm": "", "timm_args": {}, "transformers": CLIP | {"model_type": "siglip_vision_model"}, "width": 32}
    with pytest.raises(ConfigError, match="--format llava: the encoder must hand on what its last layer gives"):
        to_llava(assembled(normed | {"prefix_tokens": 0}))
    with pytest.raises(ConfigError, match="--format idefics3: the projector must be linear, but got 'mlp'"):
        to_idefics3(model)
    with pytest.raises(ConfigError, match="--format fastvlm: the encoder must be a timm CNN"):
        to_fastvlm(model)
    with pytest.raises(ConfigError, match="--format gguf: the language model must be of the form"):
        export_gguf(build(Candidate(**BASE, lm_experts=2), weights="random"), processor_of(model), Path("x"))


def test_onnx_graphs_decode_what_eager_decodes(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = build(Candidate(**{**BASE, "compression": "avgpool", "compression_factor": 4}), weights="random", seed=3)
    assert export_onnx(model, Processor.of(model.candidate), tmp_path / "onnx") < 1e-4
    assert {"vision.onnx", "embedding.onnx", "decoder.onnx", "tokenizer.json"} <= {
        file.name for file in (tmp_path / "onnx").iterdir()
    }


def test_an_executorch_program_decodes_what_eager_decodes(tmp_path: Path) -> None:
    """Where the package is installed; it is not among the pinned ones."""
    pytest.importorskip("executorch")
    model = build(Candidate(**BASE), weights="random")
    assert export_executorch(model, Processor.of(model.candidate), tmp_path / "pte") < 1e-4
    assert (tmp_path / "pte" / "model.pte").is_file()


def test_without_executorch_or_with_another_cache_one_line_says_what_to_do(tmp_path: Path) -> None:
    model = build(Candidate(**BASE, kv_cache="int8"), weights="random")
    with pytest.raises(ConfigError, match="--format executorch: the language model must be of the form"):
        export_executorch(model, Processor.of(model.candidate), tmp_path / "pte")
    if find_spec("executorch") is None:
        model = build(Candidate(**BASE), weights="random")
        with pytest.raises(MissingPackageError, match="pip install executorch"):
            export_executorch(model, Processor.of(model.candidate), tmp_path / "pte")


@pytest.mark.parametrize("lm", ["llama-micro", "qwen2.5-0.5b", "qwen3-0.6b"])
@pytest.mark.filterwarnings("ignore")  # the reader copies read-only arrays
def test_a_gguf_file_reads_back_with_equal_logits(lm: str, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    model = assembled({}, lm=lm)
    assert export_gguf(model, processor_of(model), tmp_path / "gguf") == 0


def test_the_chat_template_is_the_prompt_that_the_model_was_trained_on(tmp_path: Path) -> None:
    model = build(Candidate(**BASE), weights="random")
    export_hf(model, Processor.of(model.candidate), tmp_path / "out", card={})
    _, processor = load_export(tmp_path / "out")
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which colour?"}]}
    text = processor.tokenizer.apply_chat_template([question], tokenize=False)
    assert processor.tokenizer(text, add_special_tokens=False)["input_ids"] == processor.prompt("Which colour?")
    answered = processor.tokenizer.apply_chat_template(
        [question, {"role": "assistant", "content": "red"}], tokenize=False
    )
    ids = processor.tokenizer(answered, add_special_tokens=False)["input_ids"]
    assert ids == processor.prompt("Which colour?") + processor.answer("red")
