"""Models from outside the catalogue: the config.json of a Hugging Face folder as the fields of a spec. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from search_spaces.catalogue import SpaceError

# Our name of a size: what transformers' configs call it.
SIZES = {
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_head"),
    "kv_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "ffn": ("intermediate_size",),
    "vocab": ("vocab_size",),
}
MIXERS = {"mamba": "mamba", "mamba2": "mamba2", "falcon_h1": "hybrid", "falcon_mamba": "mamba"}
ALWAYS_TIED = {"gemma2", "gemma3_text"}  # class defaults that a config.json may leave out
# Not of the network's form, or written again from the sizes.
DROPPED = {
    "architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "_name_or_path", "auto_map",
    "quantization_config", "use_cache", "layer_types", "tie_word_embeddings", "tie_embedding", "name_or_path",
}  # fmt: skip
PLACEHOLDERS = ("<image>", "<|image_pad|>", "<|image|>", "<image_soft_token>", "<|placeholder1|>", "<reponame>")


def language_model_fields(folder: Path) -> dict[str, Any]:
    """Fields of a LanguageModelSpec; weights and tokenizer are those of the folder. Raises: SpaceError."""
    file = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        kind = str(config["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpaceError(
            f"a language model's folder must hold a config.json with model_type, but {file}: {error}"
        ) from None
    sizes = {own: next((config[n] for n in names if config.get(n)), 0) for own, names in SIZES.items()}
    taken = {name for names in SIZES.values() for name in names}
    if kind in ("mamba", "mamba2", "falcon_mamba"):
        sizes |= {"heads": 0, "kv_heads": 0, "head_dim": 0, "ffn": 0}
        taken -= {"head_dim", "num_key_value_heads"}
    elif sizes["heads"]:
        sizes["kv_heads"] = sizes["kv_heads"] or sizes["heads"]
        sizes["head_dim"] = sizes["head_dim"] or sizes["hidden"] // sizes["heads"]
    rest = {
        name: value for name, value in config.items() if name not in taken | DROPPED and "__float__" not in str(value)
    }
    if kind == "lfm2":
        sizes["ffn"] = config.get("block_ff_dim") or sizes["ffn"]
        if config.get("block_auto_adjust_ff_dim", True):
            multiple = int(config.get("block_multiple_of", 256))
            width = int(config.get("block_ffn_dim_multiplier", 1.0) * int(2 * sizes["ffn"] / 3))
            sizes["ffn"] = multiple * -(-width // multiple)
        rest = {n: v for n, v in rest.items() if n not in ("full_attn_idxs", "block_ff_dim")}
        rest["block_auto_adjust_ff_dim"] = False
    pattern = config.get("layer_types") or [MIXERS.get(kind, "full_attention")]
    if kind == "lfm2" and "full_attn_idxs" in config and not config.get("layer_types"):
        attending = set(config["full_attn_idxs"] or range(sizes["layers"]))
        pattern = ["full_attention" if index in attending else "conv" for index in range(sizes["layers"])]
    if "moe_intermediate_size" in config:
        rest["intermediate_size"], sizes["ffn"] = sizes["ffn"], int(rest.pop("moe_intermediate_size"))
    return sizes | {
        "name": str(folder), "architecture": kind, "layer_pattern": tuple(pattern), "config": rest,
        "tied_embeddings": bool(config.get("tie_word_embeddings", config.get("tie_embedding", kind in ALWAYS_TIED))),
        "image_token_id": _placeholder(folder, config), "tokenizer": _tokenizer(folder),
        "weights": str(folder) if list(folder.glob("*.safetensors")) else None,
        "source": f"config.json of {folder} (model_type {kind})",
    }  # fmt: skip


def _tokenizer(folder: Path) -> str:
    return str(folder) if (folder / "tokenizer.json").is_file() else "bytes"


def _placeholder(folder: Path, config: dict[str, Any]) -> int:
    """A token that no text holds: the folder's own image token, else a reserved one, else its last special token."""
    for key in ("image_token_id", "image_token_index"):
        if isinstance(config.get(key), int):
            return int(config[key])
    file = folder / "tokenizer.json"
    if not file.is_file():
        return 4
    added = json.loads(file.read_text(encoding="utf-8")).get("added_tokens", [])
    ids = {str(token["content"]): int(token["id"]) for token in added}
    for name in PLACEHOLDERS:
        if name in ids:
            return ids[name]
    reserved = [number for text, number in ids.items() if "reserved" in text or "unused" in text]
    return max(reserved or ids.values(), default=0)
