"""Language models of every form inside a candidate; resized, upcycled, quantised and with narrow caches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_nas_cost_language import FORMS, small
from test_nas_model_build import micro, request
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from nas import cost_language
from nas.cost import cost
from nas.errors import ConfigError
from nas.export import export_hf
from nas.latency.backends.eager import EagerBackend
from nas.latency.blocks import MeasurementContext
from nas.latency.end_to_end import measure_requests
from nas.latency.jobs import decode, kept_state
from nas.latency.terms import needed
from nas.model import MultimodalLM, Processor, Sources, build
from nas.model.language import build_language_model
from nas.model.narrow_cache import empty_cache, narrow_cache
from nas.model.quantised import Int4Linear, Int8Linear, quantise
from nas.train.packing import Pack, hidden_states, question_ids
from nas.workload import Workload
from nas.workload import load as workload
from search_spaces import SpaceError, catalogue
from search_spaces.candidate import Candidate
from search_spaces.rules import buildable

SPEC = catalogue.language_model("llama-micro")
ONE = workload("vqa-short")


def tiny(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """A Llama of llama-micro's shape with other random weights."""
    torch.manual_seed(seed)
    decoder = build_language_model(SPEC.model_copy(update=changes), range(6), "sdpa")
    assert isinstance(decoder, LlamaForCausalLM)
    return decoder.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny(5).save_pretrained(tmp_path / "lm")
    return tmp_path / "lm"


@pytest.mark.parametrize("form", FORMS)
def test_a_language_model_of_every_form_answers_about_an_image(form: str, tmp_path: Path) -> None:
    """From a folder with nothing but a config; the tokens that generation gives are those of whole passes."""
    spec = small(form)
    build_language_model(spec, range(spec.layers), "sdpa").config.save_pretrained(tmp_path)
    model = build(micro(lm=str(tmp_path), lm_depth=4), weights="random")
    assert model.language_spec.layer_kinds == spec.layer_kinds
    assert cost(model.candidate, ONE).params == model.num_parameters()
    ids, pixels = request(model)
    options: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    found = model.generate(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), **options)
    with torch.inference_mode():
        for _ in range(3):
            logits = model(input_ids=ids, pixel_values=pixels, use_cache=False).logits
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(found, ids)


@pytest.mark.parametrize("form", ["mamba", "lfm2", "gemma3_text"])
def test_several_questions_about_one_image_train_as_one_sequence_each(form: str, tmp_path: Path) -> None:
    """Packed hidden states are those of single sequences, also where a state would carry one text into the next."""
    spec = small(form)
    build_language_model(spec, range(spec.layers), "sdpa").config.save_pretrained(tmp_path)
    model = build(micro(lm=str(tmp_path), lm_depth=6, compression="avgpool", compression_factor=4), weights="random")
    processor = Processor.of(model.candidate)
    _, pixels = request(model)
    features = model.vision_tokens(pixels)
    texts = [question_ids(processor, text) for text in ("What?", "Is it a dog?")]
    with torch.inference_mode():
        packed = hidden_states(model, processor, [Pack(0, texts)], features)
        alone = [hidden_states(model, processor, [Pack(0, [text])], features)[0] for text in texts]
    for together, single in zip(packed, alone, strict=True):
        torch.testing.assert_close(together.float(), single.float(), atol=0.1, rtol=0.1)  # bfloat16 autocast


@pytest.mark.parametrize("changes", [{"lm_ffn": 96}, {"lm_heads": 2}, {"lm_experts": 4}, {"lm_ffn": 64, "lm_heads": 2}])
def test_resized_models_have_the_parameters_of_the_closed_form(changes: dict[str, int]) -> None:
    model = build(micro(**changes), weights="random")
    assert cost(model.candidate, ONE).params == model.num_parameters()
    ids, pixels = request(model)
    assert torch.isfinite(model(input_ids=ids, pixel_values=pixels).logits).all()


def test_sizes_that_no_model_has_are_one_line() -> None:
    with pytest.raises(SpaceError, match=r"lm_heads of llama-micro must be one of 2, 4, but got 3"):
        build(micro(lm_heads=3), weights="random")
    with pytest.raises(
        SpaceError, match=r"lm_experts must be 0, or 2 and more for models of the form of llama or qwen3"
    ):
        catalogue.language_model("qwen2.5-0.5b").resized(0, 0, 4)


def test_upcycled_experts_start_with_the_logits_of_the_dense_model(folder: Path) -> None:
    """Both active experts are copies and their weights sum to one (Komatsuzaki et al. 2023, section 3)."""
    dense, sparse = (build(micro(lm=str(folder), lm_experts=experts), seed=3) for experts in (0, 4))
    ids, pixels = request(dense)
    torch.testing.assert_close(
        sparse(input_ids=ids, pixel_values=pixels).logits, dense(input_ids=ids, pixel_values=pixels).logits
    )
    report = sparse.reports["language model"]
    assert len(report.copied) == 2 * 2 and [name.split(".")[-2] for name in report.random] == ["gate", "gate"]


def test_a_local_folder_fills_the_model_and_the_report_says_how(folder: Path) -> None:
    model = build(micro(lm_depth=3), weights="random", sources=Sources(lm=str(folder)))
    stored = LlamaForCausalLM.from_pretrained(folder).model
    own = model.language_model.model
    for layer, kept in zip(own.layers, (0, 2, 5), strict=True):
        assert torch.equal(layer.mlp.up_proj.weight, stored.layers[kept].mlp.up_proj.weight)
    report = model.reports["language model"]
    assert (len(report.taken), report.cut, report.random) == (3 * 9 + 2, [], [])
    assert report.unused == 3 * 9 + 1  # three dropped layers; the head is the embedding
    narrow = build(micro(lm_depth=6, lm_ffn=96, lm_heads=2), weights="random", sources=Sources(lm=str(folder)))
    down = narrow.language_model.model.layers[1].mlp.down_proj.weight
    assert torch.equal(down, stored.layers[1].mlp.down_proj.weight[:, :96])
    assert len(narrow.reports["language model"].cut) == 6 * 7
    assert "42 cut" in str(narrow.reports["language model"])


def test_the_hub_is_asked_only_on_request(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no folder 'HuggingFaceTB/SmolLM2-360M'; .* add --hub"):
        build(micro(), weights="random", sources=Sources(lm="HuggingFaceTB/SmolLM2-360M"))
    torch.save({}, tmp_path / "pytorch_model.bin")
    tiny().config.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="cannot load a language model"):
        build(micro(), weights="random", sources=Sources(lm=str(tmp_path)))
    with pytest.raises(ConfigError, match="weights must be in safetensors"):
        build(micro(), weights="random", sources=Sources(encoder=str(tmp_path)))


def test_an_encoder_folder_is_resampled_to_the_resolution(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = build(micro(encoder="vit-micro", resolution=112), weights="random", seed=4).vision.backbone.state_dict()
    save_file(source, tmp_path / "model.safetensors")
    model = build(micro(encoder="vit-micro", resolution=64), weights="random", sources=Sources(encoder=str(tmp_path)))
    report = model.reports["encoder"]
    assert report.resampled == ["pos_embed"] and not report.random and not report.unused
    name = "blocks.0.mlp.fc1.weight"
    assert torch.equal(model.vision.backbone.state_dict()[name], source[name])


def test_a_config_folder_of_another_form_is_read_without_the_catalogue(tmp_path: Path) -> None:
    config = Qwen2Config(
        vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=5, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(1)
    reference = Qwen2ForCausalLM(config).eval()
    reference.save_pretrained(tmp_path)
    model = build(micro(lm=str(tmp_path), lm_depth=5))
    ids = torch.arange(5, 15).unsqueeze(0)
    assert torch.equal(model(input_ids=ids).logits, reference(input_ids=ids).logits)
    with pytest.raises(SpaceError, match=r"must hold a config.json with model_type"):
        catalogue.language_model(str(tmp_path / "absent"))


@pytest.mark.parametrize(("weights", "kind", "bits"), [("int8", Int8Linear, 8), ("int4", Int4Linear, 4)])
def test_narrow_weights_are_near_the_wide_ones_and_as_small_as_counted(weights: Any, kind: Any, bits: int) -> None:
    wide, narrow = build(micro(), weights="random"), build(micro(lm_weights=weights), weights="random")
    ids, pixels = request(wide)
    with torch.inference_mode():
        expected = wide(input_ids=ids, pixel_values=pixels).logits
        found = narrow(input_ids=ids, pixel_values=pixels).logits
    error = float((found - expected).norm() / expected.norm())
    assert 0 < error < {8: 0.02, 4: 0.25}[bits]
    replaced = [module for module in narrow.language_model.modules() if isinstance(module, kind)]
    assert len(replaced) == 2 * 7
    body = [
        t for name, t in narrow.language_model.state_dict().items() if "embed" not in name and "lm_head" not in name
    ]
    stack = cost_language.layers(narrow.candidate)
    assert sum(t.nbytes for t in body) == cost_language.body_bytes(SPEC, stack, weights)
    assert cost(narrow.candidate, ONE).weight_bytes < cost(wide.candidate, ONE).weight_bytes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_bytes_of_narrow_weights_are_exact_for_every_form(form: str, weights: Any) -> None:
    spec = small(form)
    decoder = build_language_model(spec, range(spec.layers), "sdpa")
    quantise(decoder, weights)
    rest = {decoder.get_input_embeddings().weight.data_ptr(), decoder.get_output_embeddings().weight.data_ptr()}  # type: ignore[union-attr]
    counted = {
        t.data_ptr(): t.nbytes
        for n, t in decoder.state_dict().items()
        if t.data_ptr() not in rest and n != "lm_head.bias"
    }
    stack = cost_language.uniform_stack(spec, spec.layers)
    assert sum(counted.values()) == cost_language.body_bytes(spec, stack, weights)


def test_int4_codes_survive_the_kernels_layout() -> None:
    torch.manual_seed(0)
    layer = Int4Linear(torch.nn.Linear(64, 48))
    saved = layer.state_dict()["codes"].clone()
    layer(torch.zeros(1, 64))
    assert layer.packed
    assert torch.equal(layer.state_dict()["codes"], saved)


@pytest.mark.parametrize(
    "changes", [{"lm_weights": "int8"}, {"lm_weights": "int4"}, {"lm_experts": 2}, {"kv_cache": "int8"}]
)
def test_every_structure_reloads_with_the_same_logits(changes: dict[str, Any], tmp_path: Path) -> None:
    model = build(micro(**changes), weights="random", seed=2)
    ids, pixels = request(model)
    model(input_ids=ids, pixel_values=pixels)
    assert export_hf(model, Processor.of(model.candidate), tmp_path / "out", card={}) == 0.0


@pytest.mark.parametrize("form", ["llama", "gemma3_text", "falcon_h1"])
def test_narrow_caches_hold_as_many_bytes_as_counted_and_nearly_the_same_values(form: str) -> None:
    spec = small(form)
    torch.manual_seed(0)
    decoder = build_language_model(spec, range(spec.layers), "sdpa").eval()
    stack = cost_language.uniform_stack(spec, spec.layers)
    ids = torch.arange(12).unsqueeze(0)
    logits = {}
    for kind in ("native", "bf16", "int8"):
        cache = DynamicCache(config=decoder.config) if kind == "native" else narrow_cache(decoder.config, kind)
        with torch.inference_mode():
            decoder(input_ids=ids[:, :9], past_key_values=cache, use_cache=True)
            for place in (9, 10, 11):
                logits[kind] = decoder(
                    input_ids=ids[:, place : place + 1], past_key_values=cache, use_cache=True
                ).logits
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        held += sum(
            s.nbytes
            for layer in cache.layers
            for n in ("conv_states", "recurrent_states")
            for s in getattr(layer, n, {}).values()
        )
        assert held == cost_language.cache_bytes(stack, 12, kind)
    for kind in ("bf16", "int8"):
        assert 0 < float((logits[kind] - logits["native"]).norm() / logits["native"].norm()) < 0.03


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_timed_step_can_be_repeated_on_a_cache_that_was_set_back(form: str) -> None:
    spec, ids = small(form), torch.arange(12).unsqueeze(0)
    torch.manual_seed(0)
    decoder = build_language_model(spec, range(spec.layers), "sdpa").eval()
    cache, newest = empty_cache(decoder.config), torch.tensor([[5]])
    with torch.inference_mode():
        decode(decoder, cache, input_ids=ids)
        restore = kept_state(cache)
        first, other = (decode(decoder, cache, input_ids=newest) for _ in range(2))
        restore()
        assert cache.get_seq_length() == 12
        assert torch.equal(decode(decoder, cache, input_ids=newest), first)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form_is_timed_in_blocks_and_in_whole_requests(form: str, tmp_path: Path) -> None:
    spec = small(form)
    build_language_model(spec, range(spec.layers), "sdpa").config.save_pretrained(tmp_path)
    candidate, jobs = micro(lm=str(tmp_path), lm_depth=4), EagerBackend()
    asked = Workload(name="asked", turns=3, prompt_tokens=4, new_tokens=3)
    with torch.inference_mode():
        for block in needed(candidate, asked):
            if block.kind.startswith("decoder") and block.length <= 64 and block.depth == 2:
                job = jobs.job(block)
                for _ in range(2):
                    job.run()
                    job.restore()
    context = MeasurementContext("local-test", "torch-eager", "2", "fp32", 1)
    assert measure_requests({"": candidate}, asked, context, rounds=1)[""].latency.tpot_ms > 0


def test_generation_uses_the_narrow_cache() -> None:
    model = build(micro(kv_cache="int8", lm_depth=4), weights="random")
    ids, pixels = request(model)
    found = model.generate(
        input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False,
        eos_token_id=None, pad_token_id=0, return_dict_in_generate=True,
    )  # fmt: skip
    assert {layer.keys.dtype for layer in found.past_key_values.layers} == {torch.int8}
    assert found.sequences.shape[1] == ids.shape[1] + 3


def test_no_composed_latency_is_passed_off_as_that_of_a_changed_decoder() -> None:
    assert buildable(micro(lm_weights="int4", kv_cache="int8", lm_ffn=64)) is None
    assert "lm_heads of llama-micro must be one of 2, 4" in (buildable(micro(lm_heads=3)) or "")
    changed = {block.axes for block in needed(micro(lm_weights="int4", lm_ffn=64), ONE) if block.lm and block.depth}
    assert changed == {(("lm_ffn", 64), ("lm_weights", "int4"))}


def test_attention_is_the_one_that_the_candidate_names() -> None:
    eager, fused = (build(micro(attention=kind), weights="random") for kind in ("eager", "sdpa"))
    ids, pixels = request(eager)
    assert eager.language_model.config._attn_implementation == "eager"
    torch.testing.assert_close(
        eager(input_ids=ids, pixel_values=pixels).logits, fused(input_ids=ids, pixel_values=pixels).logits
    )


def test_the_spec_in_an_export_is_plain_json(tmp_path: Path) -> None:
    model = build(micro(), weights="random")
    model.config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["language_model"]["config"]["rope_parameters"]["rope_theta"] == 10000.0
    assert Candidate(**saved["candidate"]) == model.candidate
    assert isinstance(model, MultimodalLM) and LlamaConfig.model_type == SPEC.architecture
