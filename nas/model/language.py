"""The language model: a transformers Llama of the catalogue's shape, kept at a chosen depth."""

from __future__ import annotations

from typing import Any

from search_spaces.catalogue import LanguageModelSpec


def kept_layers(rule: str, layers: int, depth: int) -> list[int]:
    """Which decoder layers stay. `uniform`: evenly spaced, the first and the last among them."""
    if rule != "uniform":
        raise KeyError(rule)
    if not 1 <= depth <= layers:
        raise ValueError(f"lm_depth must be in 1..{layers}, but got {depth}")
    if depth == 1:
        return [0]
    return [round(i * (layers - 1) / (depth - 1)) for i in range(depth)]


def llama_config(spec: LanguageModelSpec, depth: int) -> dict[str, Any]:
    """The fields of a transformers LlamaConfig with `depth` layers."""
    return {
        "vocab_size": spec.vocab,
        "hidden_size": spec.hidden,
        "intermediate_size": spec.ffn,
        "num_hidden_layers": depth,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "max_position_embeddings": spec.max_positions,
        "rms_norm_eps": spec.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": spec.rope_theta},
        "tie_word_embeddings": spec.tied_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
    }
