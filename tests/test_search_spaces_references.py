"""Published designs, counted a second time with transformers' own classes of the sizes in their config.json."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PhiConfig,
    Qwen2Config,
    SiglipVisionConfig,
    TimmWrapperConfig,
)

import nas.workload
import search_spaces
from nas.constraints import parse, resolve
from nas.cost import cost
from search_spaces import SpaceError
from search_spaces.references import references
from search_spaces.rules import buildable

SO400M = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
    "patch_size": 14,
}  # fmt: skip
SMOLLM2 = {
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
             "num_key_value_heads": 3},
    "360m": {"hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15,
             "num_key_value_heads": 5},
    "1.7b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32,
             "num_key_value_heads": 32},
}  # fmt: skip
PHI = {"vocab_size": 51200, "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32}


def count(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def smolvlm(size: str, vocabulary: int, vision: dict[str, int], side: int) -> int:
    text = LlamaConfig(**SMOLLM2[size], vocab_size=vocabulary, tie_word_embeddings=False)
    config = Idefics3Config(vision_config=vision, text_config=text, scale_factor=side, tie_word_embeddings=False)
    return count(Idefics3ForConditionalGeneration(config))


def base_siglip(pixels: int) -> dict[str, int]:
    return {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
            "patch_size": 16, "image_size": pixels}  # fmt: skip


def siglip(vision: dict[str, int], head: bool = False) -> int:
    return count(AutoModel.from_config(SiglipVisionConfig(**vision, vision_use_head=head)))  # type: ignore[no-untyped-call]


def decoder(config: Any) -> int:
    return count(AutoModelForCausalLM.from_config(config))  # type: ignore[no-untyped-call]


def mlp(*widths: int) -> int:
    return sum(into * out + out for into, out in pairwise(widths))


def nanovlm() -> int:
    text = LlamaConfig(**SMOLLM2["135m"], vocab_size=49152, tie_word_embeddings=True)
    return siglip(base_siglip(224)) + decoder(text) + mlp(4 * 768, 576)


def fastvlm() -> int:
    vision = TimmWrapperConfig(architecture="fastvit_mci3", do_pooling=True, model_args={"inference_mode": True})
    vision.hidden_size = 3072
    text = Qwen2Config(
        vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    return count(FastVlmForConditionalGeneration(FastVlmConfig(vision_config=vision, text_config=text)))


def mobilevlm() -> int:
    """LDPv2 instead of Llava's projector: two matrices and a depthwise 3 x 3 kernel, all with biases."""
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14,
        image_size=336,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=24, num_attention_heads=16
    )
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text))
    return count(model) - count(model.model.multi_modal_projector) + mlp(1024, 2048, 2048) + 2048 * (9 + 1)


def tinyllava() -> int:
    vision = SiglipVisionConfig(**SO400M, image_size=384)
    text = PhiConfig(**PHI, num_attention_heads=32)
    return count(LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text)))


def moondream() -> int:
    text = PhiConfig(
        vocab_size=51200, hidden_size=2048, intermediate_size=8192, num_hidden_layers=24, num_attention_heads=32
    )
    return siglip({**SO400M, "image_size": 378}) + decoder(text) + mlp(1152, 8192, 2048)


COUNTED: dict[str, Callable[[], int]] = {
    "smolvlm-256m": lambda: smolvlm("135m", 49280, base_siglip(512), 4),
    "smolvlm-500m": lambda: smolvlm("360m", 49280, base_siglip(512), 4),
    "smolvlm2-500m-video": lambda: smolvlm("360m", 49280, base_siglip(512), 4),
    "smolvlm-2.2b": lambda: smolvlm("1.7b", 49155, {**SO400M, "image_size": 384}, 3),
    "nanovlm-222m": nanovlm,
    "fastvlm-0.5b": fastvlm,
    "mobilevlm-v2-1.7b": mobilevlm,
    "tinyllava-3.1b": tinyllava,
    "moondream2": moondream,
}


@pytest.mark.parametrize("name", references())
def test_the_closed_form_counts_the_published_model(name: str) -> None:
    """To a thousandth of transformers' own classes, and the publisher's figure within 1 %."""
    published = references()[name]
    assert buildable(published.candidate) is None
    ours = cost(published.candidate, nas.workload.load("vqa-short")).params + sum(published.beyond.values())
    with torch.device("meta"):
        theirs = COUNTED[name]()
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert ours == pytest.approx(published.published_params, rel=0.01)
    if published.published_params % 1000:  # published to the last digit
        assert theirs == published.published_params


def test_a_baseline_and_a_constraint_speak_of_a_published_design_by_name() -> None:
    edge, small = search_spaces.load("edge"), search_spaces.load_candidate(Path("smolvlm-256m"))
    assert edge.baseline_candidate == small and small in edge
    params = cost(small, nas.workload.load("vqa-short")).params
    half = resolve(parse("params <= 50% of smolvlm-256m"), lambda candidate: params if candidate == small else None)
    assert half.limit(None) == params / 2
    with pytest.raises(SpaceError, match=r"no design named 'fastvlm-0.6b'; did you mean 'fastvlm-0.5b'"):
        resolve(parse("params <= 50% of fastvlm-0.6b"), lambda candidate: None)
