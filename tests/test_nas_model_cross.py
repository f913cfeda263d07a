"""Gated cross-attention: closed gates change nothing, a layer is its formula, and it costs what is counted."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from test_nas_cost_language import FORMS, small
from test_nas_model_build import micro, request
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nas.config import SearchConfig
from nas.cost import cost
from nas.errors import ConfigError
from nas.export import export_hf
from nas.export_gguf import export_gguf
from nas.export_onnx import export_onnx
from nas.model import MultimodalLM, Processor, build
from nas.model.cross import GatedCrossAttention
from nas.model.language import build_language_model
from nas.quality.score import probe_batch, score
from nas.search.exact import weigh
from nas.search.problem import define
from nas.train.data import Question
from nas.train.loop import train
from nas.train.packing import Pack, hidden_states, question_ids
from nas.train.recipe import Recipe
from nas.workload import load as workload
from search_spaces.candidate import Candidate
from search_spaces.rules import buildable

ONE = workload("vqa-short")
GREEDY: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}


def crossing(**changes: Any) -> Candidate:
    return micro(**{"projector": "cross-attention", "lm_depth": 5, **changes})


def opened(candidate: Candidate, seed: int = 0) -> MultimodalLM:
    """With gates that let the image through."""
    model = build(candidate, weights="random", seed=seed)
    with torch.no_grad():
        for place, layer in enumerate(model.projector.layers):
            layer.attention_gate.fill_(0.7 + place)
            layer.feed_gate.fill_(-0.4)
    return model


def test_with_closed_gates_the_model_is_the_language_model_alone() -> None:
    model = build(crossing(), weights="random")
    ids, pixels = request(model)
    assert not (ids == model.language_spec.image_token_id).any()
    with torch.inference_mode():
        found = model(input_ids=ids, pixel_values=pixels).logits
        assert torch.equal(found, model.language_model(input_ids=ids).logits)
        assert torch.equal(found, model(input_ids=ids).logits)
        other = opened(crossing())
        assert not torch.allclose(found, other(input_ids=ids, pixel_values=pixels).logits, atol=1e-2)
        assert torch.equal(found, other(input_ids=ids).logits)  # no image: nothing to read


def test_a_layer_is_its_formula() -> None:
    """Written out with einsum, head by head, in double precision."""
    torch.manual_seed(0)
    layer = GatedCrossAttention(128).double()
    assert layer.heads == 2
    with torch.no_grad():
        layer.attention_gate.fill_(0.3)
        layer.feed_gate.fill_(-0.9)
    text, visual = torch.randn(2, 5, 128).double(), torch.randn(2, 7, 128).double()
    with torch.no_grad():
        found = layer(text, *layer.keys_values(visual))
    w = {name: weight.detach() for name, weight in layer.named_parameters()}
    normed = F.layer_norm(text, (128,), w["norm.weight"], w["norm.bias"])
    heads = []
    for head in (slice(0, 64), slice(64, 128)):
        q, k, v = normed @ w["q_proj.weight"].T, visual @ w["k_proj.weight"].T, visual @ w["v_proj.weight"].T
        weights = torch.einsum("btd,bmd->btm", q[..., head], k[..., head]).div(8).softmax(-1)
        heads.append(torch.einsum("btm,bmd->btd", weights, v[..., head]))
    expected = text + torch.tanh(torch.tensor(0.3).double()) * (torch.cat(heads, -1) @ w["out_proj.weight"].T)
    fed = F.layer_norm(expected, (128,), w["feed_norm.weight"], w["feed_norm.bias"]) @ w["up_proj.weight"].T
    expected = expected + torch.tanh(torch.tensor(-0.9).double()) * (fed.clamp(min=0) ** 2 @ w["down_proj.weight"].T)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # the gates are float32 before they are widened


@pytest.mark.parametrize("form", FORMS)
def test_generation_gives_the_tokens_of_whole_passes_in_every_form(form: str, tmp_path: Path) -> None:
    spec = small(form)
    build_language_model(spec, range(spec.layers), "sdpa").config.save_pretrained(tmp_path)
    model = opened(crossing(lm=str(tmp_path)))
    assert len(model.projector.layers) == 2
    assert cost(model.candidate, ONE).params == model.num_parameters()
    ids, pixels = request(model)
    found = model.generate(
        input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), max_new_tokens=3, **GREEDY
    )
    with torch.inference_mode():
        for _ in range(3):
            logits = model(input_ids=ids, pixel_values=pixels, use_cache=False).logits
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(found, ids)


@pytest.mark.parametrize("kv_cache", ["native", "int8"])
def test_visual_keys_and_values_are_computed_once_and_kept(kv_cache: Any) -> None:
    model = opened(crossing(kv_cache=kv_cache))
    calls = []
    for layer in model.projector.layers:
        layer.k_proj.register_forward_hook(lambda *_: calls.append(1))
    ids, pixels = request(model)
    found = model.generate(
        input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), max_new_tokens=4,
        return_dict_in_generate=True, **GREEDY,
    )  # fmt: skip
    assert len(calls) == len(model.projector.layers)
    assert [keys.shape for keys, _ in found.past_key_values.visual] == [(1, 16, 64)] * 2
    assert {layer.keys.shape[2] for layer in found.past_key_values.layers} == {ids.shape[1] + 3}
    assert all(layer.seen is None for layer in model.projector.layers)


def test_a_copied_model_reads_through_its_own_layers() -> None:
    model = opened(crossing())
    ids, pixels = request(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for layer in model.projector.layers:
            layer.attention_gate.zero_()
        assert not torch.equal(
            model(input_ids=ids, pixel_values=pixels).logits, twin(input_ids=ids, pixel_values=pixels).logits
        )


@pytest.mark.parametrize("lm", ["llama-micro", "smollm2-135m", "gemma-3-270m"])
def test_parameters_are_exact_and_flops_within_one_percent(lm: str) -> None:
    candidate = crossing(lm=lm, lm_depth=6, compression="avgpool", compression_factor=4)
    with torch.device("meta"), torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        model = build(candidate, weights="random")
        features = model.vision_tokens(torch.zeros(1, 3, 64, 64))
        ids = torch.zeros(1, ONE.prompt_tokens, dtype=torch.long)
        with FlopCounterMode(display=False) as prefill:
            model(input_ids=ids, vision_features=features, use_cache=True, logits_to_keep=1)
        before = torch.zeros(1, ONE.prompt_tokens + ONE.new_tokens - 1, dtype=torch.long)
        cache = model(input_ids=before, vision_features=features, use_cache=True).past_key_values
        with FlopCounterMode(display=False) as step:
            model(input_ids=ids[:, :1], past_key_values=cache, use_cache=True)
    bill = cost(candidate, ONE)
    assert bill.visual_tokens == model.visual_tokens == 4
    assert bill.params == model.num_parameters()
    assert prefill.get_total_flops() == pytest.approx(bill.prefill_flops + bill.projector_flops, rel=0.01)
    assert step.get_total_flops() == pytest.approx(bill.decode_flops, rel=0.01)


def test_the_cache_holds_as_many_bytes_as_counted() -> None:
    model = opened(crossing())
    ids = torch.full((1, ONE.prompt_tokens + ONE.new_tokens), 9)
    with torch.inference_mode():
        cache = model(input_ids=ids, pixel_values=request(model)[1], use_cache=True).past_key_values
    own = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert own + sum(part.nbytes for pair in cache.visual for part in pair) == cost(model.candidate, ONE).kv_bytes


def test_an_export_reloads_with_the_same_logits_and_other_forms_are_refused(tmp_path: Path) -> None:
    model = opened(crossing())
    processor = Processor.of(model.candidate)
    assert export_hf(model, processor, tmp_path / "out", card={}) == 0.0
    with pytest.raises(ConfigError, match="cross-attention"):
        export_onnx(model, processor, tmp_path / "onnx")
    with pytest.raises(ConfigError, match="cross-attention"):
        export_gguf(model, processor, tmp_path / "gguf")


def test_packed_questions_have_the_hidden_states_of_single_ones() -> None:
    model = opened(crossing())
    processor, features = Processor.of(model.candidate), torch.randn(2, 16, 32)
    texts = [question_ids(processor, text) for text in ("what shape?", "is there a red circle?", "which colour?")]
    with torch.inference_mode():
        packed = hidden_states(model, processor, [Pack(0, texts[:2]), Pack(1, texts[2:])], features)
        for image, text, together in zip((0, 0, 1), texts, packed, strict=True):
            alone = hidden_states(model, processor, [Pack(image, [text])], features)[0]
            torch.testing.assert_close(together, alone, rtol=0.05, atol=0.05)  # bfloat16


def test_training_opens_the_gates_and_learns_what_only_the_image_tells() -> None:
    torch.manual_seed(0)
    model = build(crossing(lm_depth=2), weights="random")
    processor = Processor.of(model.candidate)
    features = torch.stack([torch.full((16, 32), value) for value in (-1.0, 1.0)])
    questions = [Question(image, "which?", answer) for image, answer in ((0, "a"), (1, "b"))]
    losses = train(model, processor, questions, features, Recipe(steps=60, images=2), lambda *_: None)
    assert all(float(layer.attention_gate.detach().abs()) > 0 for layer in model.projector.layers)
    assert losses[-1][1] < 0.1  # blind, both answers cost ln 2 / 2 a token


def test_proxies_score_it() -> None:
    model = build(crossing(), weights="random")
    batch = probe_batch(model, 0)
    assert not (batch.input_ids == model.language_spec.image_token_id).any()
    found = score(model, batch)
    assert all(one.value is not None for one in found.values())
    assert found["visual-tokens"].value == 16
    assert score(model, batch, ("grad-norm",))["grad-norm"].value


def test_a_search_leaves_out_what_has_no_latency() -> None:
    """A workload of several turns: cross-attention reads one picture."""
    projectors: list[str | int] = ["mlp", "cross-attention"]
    compression: list[str | int] = ["none"]
    overrides = {"projector": projectors, "compression": compression, "compression_factor": [1]}
    problem = define(SearchConfig(space="micro", devices=["apple-m1"], workload="agent-loop", overrides=overrides))
    assert {block.projector for block in problem.blocks(problem.space.survey) if block.projector} == {"mlp"}
    weighed = weigh(problem, problem.space.survey)
    assert {candidate.projector for candidate in weighed.candidates} == {"mlp"}


def test_what_cannot_be_is_told_in_one_line() -> None:
    assert "compression" in (buildable(crossing(compression="fastv", compression_factor=4, prune_layer=2)) or "")
    assert "tiling" in (buildable(crossing(tiling="any-resolution", tiles=2)) or "")
    assert buildable(crossing()) is None
    model = opened(crossing())
    ids, pixels = request(model)
    with pytest.raises(ValueError, match="same number of images, but 2 texts have 3"):
        model(input_ids=ids.repeat(2, 1), pixel_values=pixels.repeat(3, 1, 1, 1))
