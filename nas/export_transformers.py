"""A model in the form of transformers' own vision-language classes, where its parts are of that form.

Llava: a transformers encoder whose last hidden state is what is read, and an MLP. Idefics3 / SmolVLM: a SigLIP-type ViT
of timm, pixel shuffle and one matrix. FastVLM: a timm CNN read at its end, an MLP and Qwen 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from nas.model import MultimodalLM, Processor

# Another order of the same sums (Idefics3's channels after the shuffle; 1e-6 in small models), or a folded bias.
TOLERANCE = 1e-3


def to_llava(model: MultimodalLM) -> Any:
    """The model as a LlavaForConditionalGeneration. Raises: ConfigError naming the part without such a form."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    spec = model.encoder_spec
    _require(model, "projector", ["mlp"], "llava")
    _require(model, "compression", ["none"], "llava")
    if not spec.transformers or spec.mels:
        kind = "one of sound" if spec.mels else f"timm's {spec.timm}"
        raise _refusal("llava", f"encoder must be one of transformers that sees, but {spec.name} is {kind}")
    if not _ends_in_its_last_layer(model):
        raise _refusal("llava", f"encoder must hand on what its last layer gives, but {spec.name} norms it first")
    config = LlavaConfig(
        vision_config=model.vision.backbone.config, text_config=_text_config(model),
        image_token_index=model.language_spec.image_token_id,
        vision_feature_layer=-1, vision_feature_select_strategy="default" if spec.prefix_tokens else "full",
        tie_word_embeddings=model.language_spec.tied_embeddings,
    )  # fmt: skip
    state = {f"model.vision_tower.{name}": tensor for name, tensor in model.vision.backbone.state_dict().items()}
    return _filled(LlavaForConditionalGeneration(config), state | _mlp(model) | _language(model, "language_model"))


def _ends_in_its_last_layer(model: MultimodalLM) -> bool:
    """Whether the states that are read are those that Llava reads. SigLIP norms them."""
    import torch

    side = model.candidate.resolution
    with torch.inference_mode():
        noise = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        found: Any = model.vision.backbone(pixel_values=noise, output_hidden_states=True)
    return torch.equal(found.hidden_states[-1], found.last_hidden_state)


def to_fastvlm(model: MultimodalLM) -> Any:
    """FastVlmForConditionalGeneration with the same weights. Raises: ConfigError."""
    from transformers import FastVlmConfig, FastVlmForConditionalGeneration, TimmWrapperConfig

    spec = model.encoder_spec
    _require(model, "projector", ["mlp"], "fastvlm")
    _require(model, "compression", ["none"], "fastvlm")
    if spec.family != "cnn" or not spec.timm or spec.feature_index is not None:
        raise _refusal("fastvlm", f"encoder must be a timm CNN read at its end, but got {spec.name}")
    if model.language_spec.architecture != "qwen2":
        raise _refusal("fastvlm", f"language model must be a Qwen 2, but {model.language_spec.name} is another")
    vision = TimmWrapperConfig(architecture=spec.timm, do_pooling=True, model_args=dict(spec.timm_args))
    vision.hidden_size = spec.width
    config = FastVlmConfig(
        vision_config=vision, text_config=_text_config(model), image_token_index=model.language_spec.image_token_id,
        tie_word_embeddings=model.language_spec.tied_embeddings,
    )  # fmt: skip
    own = model.vision.backbone.state_dict()
    state = {f"model.vision_tower.timm_model.{name}": tensor for name, tensor in own.items()}
    return _filled(FastVlmForConditionalGeneration(config), state | _mlp(model) | _language(model, "language_model"))


def to_idefics3(model: MultimodalLM) -> Any:
    """Idefics3ForConditionalGeneration, the form of SmolVLM, with the same weights. Raises: ConfigError."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    spec, candidate = model.encoder_spec, model.candidate
    _require(model, "projector", ["linear"], "idefics3")
    _require(model, "compression", ["none", "pixel-shuffle"], "idefics3")
    backbone: Any = model.vision.backbone
    if spec.family != "vit" or not spec.timm or spec.prefix_tokens or hasattr(backbone.blocks[0], "ls1.gamma"):
        raise _refusal(
            "idefics3", f"encoder must be a SigLIP-type ViT of timm without class token, but got {spec.name}"
        )
    side = round(candidate.compression_factor**0.5)
    activation = backbone.blocks[0].mlp.act
    vision = {
        "hidden_size": spec.width, "intermediate_size": spec.ffn, "num_hidden_layers": len(backbone.blocks),
        "num_attention_heads": spec.heads, "image_size": candidate.resolution, "patch_size": spec.stride,
        "layer_norm_eps": backbone.norm.eps,
        "hidden_act": "gelu_pytorch_tanh" if getattr(activation, "approximate", "") == "tanh"
        or "Tanh" in type(activation).__name__ else "gelu",
    }  # fmt: skip
    config = Idefics3Config(
        vision_config=vision, text_config=_text_config(model), scale_factor=side,
        image_token_id=model.language_spec.image_token_id,
        tie_word_embeddings=model.language_spec.tied_embeddings,
    )  # fmt: skip
    state = {f"model.vision_model.{name}": tensor for name, tensor in siglip_names(backbone.state_dict()).items()}
    weight, bias = (model.projector.state_dict()[name] for name in ("weight", "bias"))
    blocks = weight.reshape(weight.shape[0], spec.width, side**2).transpose(1, 2)  # (H, r^2, D): theirs is block-major
    state["model.connector.modality_projection.proj.weight"] = blocks.reshape_as(weight)
    state["model.vision_model.post_layernorm.bias"] = _fold(
        blocks.sum(1), bias, state["model.vision_model.post_layernorm.bias"]
    )
    return _filled(Idefics3ForConditionalGeneration(config), state | _language(model, "text_model"))


def _fold(matrix: Tensor, bias: Tensor, norm_bias: Tensor) -> Tensor:
    """The connector has no bias: the encoder's last norm takes one that the matrix maps onto it (least squares)."""
    import torch

    if not bool(bias.any()):
        return norm_bias
    wide = matrix.double()
    shift = torch.linalg.lstsq(wide, bias.double().unsqueeze(1), driver="gelsd").solution[:, 0]
    if float((wide @ shift - bias.double()).abs().max()) > TOLERANCE:
        raise _refusal("idefics3", "projector's bias must be expressible by the encoder's last norm, but it is not")
    folded: Tensor = norm_bias + shift.to(norm_bias.dtype)
    return folded


def siglip_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A timm ViT without class token by the names of transformers' SigLIP and Idefics3 encoders."""
    renamed: dict[str, Tensor] = {
        "embeddings.patch_embedding.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embedding.bias": state["patch_embed.proj.bias"],
        "embeddings.position_embedding.weight": state["pos_embed"][0],
        "post_layernorm.weight": state["norm.weight"],
        "post_layernorm.bias": state["norm.bias"],
    }
    plain = {
        "norm1": "layer_norm1", "norm2": "layer_norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
        "attn.proj": "self_attn.out_proj",
    }  # fmt: skip
    for name, tensor in state.items():
        if not (found := re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)):
            continue
        layer, part, kind = found.groups()
        if part == "attn.qkv":
            for which, third in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"encoder.layers.{layer}.self_attn.{which}_proj.{kind}"] = third
        else:
            renamed[f"encoder.layers.{layer}.{plain[part]}.{kind}"] = tensor
    return renamed


FORMS: dict[str, Callable[[MultimodalLM], Any]] = {"llava": to_llava, "idefics3": to_idefics3, "fastvlm": to_fastvlm}


def export_form(model: MultimodalLM, processor: Processor, to: Path, form: str) -> float:
    """A folder that transformers loads without this program; returns the largest logit difference to our model.

    Raises: ConfigError where a part has no such form, or the logits differ by more than rounding.
    """
    from transformers import AutoModelForImageTextToText

    from nas.export import new_folder, probe_inputs, quiet

    theirs = FORMS[form](model)
    with new_folder(to) as partial:
        with quiet():
            theirs.save_pretrained(partial)
            processor.save(partial)
            again: Any = AutoModelForImageTextToText.from_pretrained(partial, local_files_only=True)
        again.train(False)
        ids, pixels = probe_inputs(processor)
        difference = form_difference(model, again, ids, pixels)
        if difference > TOLERANCE:
            raise _refusal(form, f"logits must agree within {TOLERANCE}, but differ by {difference:g}")
        (partial / "README.md").write_text(
            f"# {model.candidate}\n\nFound by `nas`; converted to transformers' {type(theirs).__name__}.\n"
            f"Largest logit difference to the searched model on a fixed probe: {difference:g}.\n",
            encoding="utf-8",
        )
    return difference


def form_difference(model: MultimodalLM, theirs: Any, ids: Tensor, pixels: Tensor) -> float:
    """Largest absolute difference of all logits for one image and question."""
    import torch

    images = pixels.unsqueeze(1) if theirs.config.model_type == "idefics3" else pixels
    with torch.inference_mode():
        here = model(input_ids=ids, pixel_values=pixels).logits
        there = theirs(input_ids=ids, pixel_values=images).logits
    return float((here - there).abs().max())


def _text_config(model: MultimodalLM) -> Any:
    return model.language_model.config


def _mlp(model: MultimodalLM) -> dict[str, Tensor]:
    own = model.projector.state_dict()
    names = {"0": "linear_1", "2": "linear_2"}
    return {
        f"model.multi_modal_projector.{names[name.split('.')[0]]}.{name.split('.')[1]}": tensor
        for name, tensor in own.items()
    }


def _language(model: MultimodalLM, part: str) -> dict[str, Tensor]:
    """The decoder below `model.<part>`, its head at the top."""
    prefix = f"{model.language_model.base_model_prefix}."
    state: dict[str, Tensor] = {}
    for name, tensor in model.language_model.state_dict().items():
        state[f"model.{part}.{name.removeprefix(prefix)}" if name.startswith(prefix) else name] = tensor
    return state


def _filled(theirs: Any, state: dict[str, Tensor]) -> Any:
    found = theirs.load_state_dict(state, strict=False)
    missing = [name for name in found.missing_keys if name != "lm_head.weight"]  # tied to the embedding
    if missing or found.unexpected_keys:
        raise ConfigError(
            f"cannot convert to {type(theirs).__name__}: {', '.join([*missing, *found.unexpected_keys][:4])}"
        )
    return theirs.eval()


def _require(model: MultimodalLM, axis: str, allowed: list[str], form: str) -> None:
    value = getattr(model.candidate, axis)
    if value not in allowed:
        raise _refusal(form, f"{axis} must be {' or '.join(allowed)}, but got {value!r}")
    for other, plain in (("lm_weights", "native"), ("second_encoder", "none"), ("tiling", "none")):
        if getattr(model.candidate, other) != plain:
            raise _refusal(form, f"{other} must be {plain!r}, but got {getattr(model.candidate, other)!r}")


def _refusal(form: str, rule: str) -> ConfigError:
    return ConfigError(f"--format {form}: the {rule}; use --format hf")
