"""The language model: any causal LM of transformers, at a chosen depth, width and number of experts."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from nas.depth import kept_layers
from search_spaces.candidate import Candidate
from search_spaces.catalogue import LanguageModelSpec

SIZES = {
    "hidden_size": "hidden", "intermediate_size": "ffn", "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads", "head_dim": "head_dim", "vocab_size": "vocab",
}  # fmt: skip
EXPERT_WIDTH = "moe_intermediate_size"  # where experts have a width of their own beside that of dense layers


def language_config(spec: LanguageModelSpec, kept: Sequence[int]) -> PreTrainedConfig:
    """transformers' config of the layers `kept`: whatever has an entry a layer is cut with the depth.

    Setting `num_hidden_layers` alone would leave `layer_types` too long.
    """
    config_class: Any = CONFIG_MAPPING[spec.architecture]
    known = {name for base in config_class.__mro__ for name in getattr(base, "__annotations__", {})}
    fields: dict[str, Any] = {theirs: size for theirs, own in SIZES.items() if (size := getattr(spec, own))}
    if EXPERT_WIDTH in known and spec.ffn:
        fields |= {EXPERT_WIDTH: spec.ffn, "decoder_sparse_step": 1, "mlp_only_layers": []}
    for name, value in spec.config.items():
        per_layer = isinstance(value, list) and len(value) == spec.layers and spec.layers > 2
        fields[name] = [value[index] for index in kept] if per_layer else value
    fields |= {"num_hidden_layers": len(kept), "tie_word_embeddings": spec.tied_embeddings}
    if "layer_types" in known and spec.heads:
        fields["layer_types"] = [spec.layer_kinds[index] for index in kept]
    for name in (
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    ):  # the processor's own; defaults may exceed a vocabulary
        fields.setdefault(name, None)
    made: PreTrainedConfig = config_class(**fields)
    return made


def build_language_model(spec: LanguageModelSpec, kept: Sequence[int], attention: str) -> PreTrainedModel:
    """A causal language model of transformers with initial weights.

    `sdpa` is the fused kernel where the form has one: Gemma 2 caps its logits and runs eager, Mamba has no attention.
    """
    config = language_config(spec, kept)
    if not AutoModelForCausalLM._model_mapping[type(config)]._supports_sdpa:  # type: ignore[attr-defined]
        attention = "eager"
    model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        config, attn_implementation=attention
    )
    return model


def cache_argument(model: PreTrainedModel) -> str:
    """What a language model's forward calls its cache: pure state spaces have a name of their own."""
    return "cache_params" if "cache_params" in signature(type(model).forward).parameters else "past_key_values"


def head_width(config: Any) -> int:
    """Channels of one attention head of a decoder's configuration."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def candidate_layers(candidate: Candidate, spec: LanguageModelSpec) -> list[int]:
    """Which layers of the published model a candidate keeps."""
    return kept_layers(candidate.lm_layers, spec, candidate.lm_depth)
