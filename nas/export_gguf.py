"""The language model as a GGUF file, proved by reading it back through transformers with equal logits."""

from __future__ import annotations

import json
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import ConfigError, MissingPackageError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from nas.model import MultimodalLM, Processor

ARCHITECTURES = ("llama", "qwen2", "qwen3")
QWEN3_HEAD = 128
LAYER_NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def export_gguf(model: MultimodalLM, processor: Processor, to: Path) -> float:
    """Writes `language-model.gguf` (float32) into a new folder; returns the largest logit difference when read back.

    Raises: ConfigError for a form that GGUF is not written of, MissingPackageError.
    """
    spec = model.language_spec
    if spec.architecture not in ARCHITECTURES or model.candidate.lm_weights != "native":
        raise ConfigError(
            f"--format gguf: the language model must be of the form {', '.join(ARCHITECTURES)} with native weights, "
            f"but got {spec.architecture} with {model.candidate.lm_weights}; use --format hf"
        )
    if model.candidate.crosses:
        raise ConfigError("--format gguf: there is no form of gated cross-attention layers; use --format hf")
    if spec.architecture == "qwen3" and spec.head_dim != QWEN3_HEAD:
        raise ConfigError(
            f"--format gguf: heads of a Qwen 3 must be {QWEN3_HEAD} wide, which readers take for granted, "
            f"but got {spec.head_dim}; use --format hf"
        )
    from nas.export import new_folder

    with new_folder(to) as partial:
        write(model, processor, partial / "language-model.gguf")
        difference = read_back_difference(model, partial / "language-model.gguf")
        if difference > 0:
            raise ConfigError(
                f"--format gguf: logits must read back unchanged, but differ by {difference:g}; report it"
            )
    return difference


def write(model: MultimodalLM, processor: Processor, file: Path) -> None:
    """One GGUF file of the decoder and its tokenizer. Raises: MissingPackageError."""
    try:
        import gguf
    except ImportError:
        raise MissingPackageError("--format gguf needs the package 'gguf'; run: pip install gguf") from None
    spec, config = model.language_spec, model.language_model.config
    writer = gguf.GGUFWriter(str(file), spec.architecture)
    writer.add_name(str(model.candidate))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(spec.hidden)
    writer.add_feed_forward_length(spec.ffn)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_key_length(spec.head_dim)
    writer.add_value_length(spec.head_dim)
    writer.add_rope_dimension_count(spec.head_dim)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(spec.vocab)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_tokenizer(writer, processor, spec.vocab)
    for name, tensor in model.language_model.state_dict().items():
        if name == "lm_head.weight" and spec.tied_embeddings:
            continue
        writer.add_tensor(_name(name), _array(name, tensor, spec.architecture, spec.heads, spec.kv_heads))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _name(name: str) -> str:
    top = {
        "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }  # fmt: skip
    if name in top:
        return top[name]
    _, _, layer, *parts, kind = name.split(".")
    return f"blk.{layer}.{LAYER_NAMES['.'.join(parts)]}.{kind}"


def _array(name: str, tensor: Tensor, architecture: str, heads: int, kv_heads: int) -> np.ndarray[Any, Any]:
    """float32; Llama's queries and keys in GGUF's order: rotary pairs lie beside each other, not half a head apart."""
    tensor = tensor.detach().float()
    if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
        count = heads if "q_proj" in name else kv_heads
        tensor = tensor.reshape(count, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
    array: np.ndarray[Any, Any] = tensor.contiguous().numpy()
    return array


def _add_tokenizer(writer: Any, processor: Processor, vocab: int) -> None:
    """Byte-pair tokenizers with their merges; unused rows of the embedding are named as such."""
    import gguf

    core = json.loads(processor.tokenizer.backend_tokenizer.to_str())
    known = {index: token for token, index in processor.tokenizer.get_vocab().items()}
    special = {token["id"] for token in core["added_tokens"] if token["special"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([known.get(index, f"[unused{index}]") for index in range(vocab)])
    kinds = gguf.TokenType
    writer.add_token_types(
        [kinds.UNUSED if i not in known else kinds.CONTROL if i in special else kinds.NORMAL for i in range(vocab)]
    )
    merges = core["model"].get("merges") or []
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges] or ["a b"])
    writer.add_bos_token_id(processor.start_id)
    writer.add_eos_token_id(processor.end_id)


def read_back_difference(model: MultimodalLM, file: Path) -> float:
    """Largest logit difference between the decoder and the file as transformers' own reader understands it."""
    import torch
    from transformers import AutoModelForCausalLM

    from nas.export import quiet

    with quiet(), redirect_stderr(StringIO()):  # the reader has a progress bar that no setting of transformers reaches
        again: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, local_files_only=True
        )
        again.train(False)
    ids = torch.arange(min(24, model.language_spec.vocab)).unsqueeze(0)
    with torch.inference_mode():
        return float((again(input_ids=ids).logits - model.language_model(input_ids=ids).logits).abs().max())
