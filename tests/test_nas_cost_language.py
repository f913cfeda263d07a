"""Closed forms of language models against transformers' own models of every form, counted on the meta device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, PreTrainedModel

from nas import cost_language
from nas.depth import kept_layers
from nas.model.language import build_language_model, cache_argument
from search_spaces import SpaceError, catalogue
from search_spaces.catalogue import LanguageModelSpec

MODELS = list(catalogue.language_models().values())
PUBLISHED = [spec for spec in MODELS if spec.published_params]
FORMS = sorted({spec.architecture for spec in MODELS})


def meta(spec: LanguageModelSpec, depth: int) -> PreTrainedModel:
    with torch.device("meta"):
        return build_language_model(spec, kept_layers("uniform", spec, depth), "sdpa").eval()


def small(architecture: str, **changes: Any) -> LanguageModelSpec:
    """The first entry of a form with its structure and small sizes, so that it really runs."""
    spec = next(spec for spec in MODELS if spec.architecture == architecture)
    config = dict(spec.config)
    for name, size in {
        "state_size": 16, "mamba_d_state": 16, "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16,
        "num_heads": 8, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "sliding_window": 6,
        "shared_expert_intermediate_size": 48, "intermediate_size": 64, "query_pre_attn_scalar": 16,
    }.items():  # fmt: skip
        if name in config:
            config[name] = size
    for name in ("mamba_chunk_size", "chunk_size"):
        if architecture in ("mamba2", "falcon_h1"):
            config[name] = 16
    config |= {name: None for name in ("pad_token_id",) if name in config}
    if "no_rope_layers" in config:
        config["no_rope_layers"] = [1, 1, 1, 0, 1, 1]
    sizes: dict[str, Any] = {"hidden": 64, "layers": 6, "vocab": 320, "config": config}
    if spec.heads:
        sizes |= {"heads": 4, "kv_heads": 4 if architecture == "olmoe" else 2, "head_dim": 16, "ffn": 96}
    if len(spec.layer_pattern) == spec.layers:
        sizes["layer_pattern"] = ("conv", "full_attention", "conv")
    return spec.model_copy(update=sizes | changes)


@pytest.mark.parametrize("spec", PUBLISHED, ids=lambda spec: spec.name)
def test_parameters_are_those_that_its_publisher_and_transformers_count(spec: LanguageModelSpec) -> None:
    stack = cost_language.uniform_stack(spec, spec.layers)
    assert cost_language.body_params(spec, stack) + cost_language.head_params(spec) == spec.published_params
    assert meta(spec, spec.layers).num_parameters() == spec.published_params


@pytest.mark.parametrize("form", FORMS)
def test_parameters_stay_exact_when_layers_are_dropped(form: str) -> None:
    spec = next(spec for spec in MODELS if spec.architecture == form)
    for depth in (1, 5):
        model = meta(spec, depth)
        stack = cost_language.uniform_stack(spec, depth)
        assert cost_language.body_params(spec, stack) + cost_language.head_params(spec) == model.num_parameters()
        kinds = getattr(model.config, "layer_types", None)
        assert kinds is None or len(kinds) == model.config.num_hidden_layers == depth


def test_layer_types_are_cut_with_the_depth_to_those_of_the_kept_layers() -> None:
    spec = catalogue.language_model("lfm2-350m")
    kept = kept_layers("uniform", spec, 6)
    config = meta(spec, 6).config
    assert config.layer_types == [spec.layer_kinds[index] for index in kept]
    spec = catalogue.language_model("smollm3-3b")
    config = meta(spec, 9).config
    assert config.no_rope_layers == [[1, 1, 1, 0][index % 4] for index in kept_layers("uniform", spec, 9)]


@pytest.mark.parametrize("form", FORMS)
def test_flops_and_cache_are_those_that_run(form: str) -> None:
    """FLOPs within 1 % of torch's counter, the bytes of keys, values and states exact, beyond the sliding window."""
    spec = small(form)
    torch.manual_seed(0)
    model = build_language_model(spec, list(range(spec.layers)), "sdpa").eval()
    stack = cost_language.uniform_stack(spec, spec.layers)
    assert cost_language.body_params(spec, stack) + cost_language.head_params(spec) == model.num_parameters()
    prompt = torch.arange(10).unsqueeze(0)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as first:
            model(input_ids=prompt, **{cache_argument(model): cache}, use_cache=True, logits_to_keep=1)
        with FlopCounterMode(display=False) as step:
            found = model(input_ids=prompt[:, :1], **{cache_argument(model): cache}, use_cache=True)
    assert torch.isfinite(found.logits).all()
    recurrent = any(layer.state for layer in stack)
    if not recurrent and not stack[0].expert_count:  # scans and grouped experts are no matrix products to the counter
        assert first.get_total_flops() == pytest.approx(cost_language.stack_flops(spec, stack, 10, 10), rel=0.01)
        assert step.get_total_flops() == pytest.approx(cost_language.stack_flops(spec, stack, 1, 11), rel=0.01)
    assert cached_bytes(cache) == cost_language.cache_bytes(stack, 11)


def cached_bytes(cache: DynamicCache) -> int:
    names = ("keys", "values", "conv_states", "recurrent_states")
    tensors = []
    for layer in cache.layers:
        for name in names:
            value = getattr(layer, name, None)
            tensors += list(value.values()) if isinstance(value, dict) else [value]
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, torch.Tensor))


def test_a_form_without_a_closed_form_is_named() -> None:
    spec = catalogue.language_model("llama-micro").model_copy(update={"architecture": "gpt2"})
    with pytest.raises(SpaceError, match=r"no closed form of model_type 'gpt2' .*; known: falcon_h1"):
        cost_language.uniform_stack(spec, 2)


def test_active_parameters_of_experts_are_fewer_than_all() -> None:
    spec = catalogue.language_model("olmoe-1b-7b")
    (layer,) = set(cost_language.uniform_stack(spec, spec.layers))
    active = layer.active_matrices * spec.layers + cost_language.head_params(spec)
    assert active == pytest.approx(1.28e9, rel=0.01)  # "1.3B active" (Muennighoff et al. 2024, table 1: 1.3 of 6.9)
