"""What an encoder is, read off the network itself on the meta device: the entry of the catalogue, for any name."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas.cost_vision import vision_flops
from nas.model.vision import VisionEncoder
from search_spaces.catalogue import EncoderSpec, SpaceError, unknown

TRIAL = 448  # pixels that every usual stride divides: 7 x 64, 14 x 32, 28 x 16, 32 x 14
SIDES = (8, 12, 16)  # grids at which a polynomial in the pixels is fitted; even ones, as some halve their keys
TOLERANCE = 0.01


@cache
def outside_encoder(name: str) -> EncoderSpec:
    """The entry of `timm:NAME`, `hf:FOLDER` or `hf:MODEL_TYPE`. Raises: SpaceError with the near miss."""
    source, _, rest = name.partition(":")
    return _of_timm(name, rest) if source == "timm" else _of_transformers(name, rest)


def _of_timm(name: str, architecture: str) -> EncoderSpec:
    import timm

    if not timm.is_model(architecture):
        raise unknown("timm architecture", architecture, timm.list_models())
    published: Any = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
    mean, std = (published.mean, published.std) if published else ((0.5,) * 3, (0.5,) * 3)
    return describe(
        name, {"timm": architecture}, mean=list(mean), std=list(std),
        source=f"timm {timm.__version__} {architecture}; described on the meta device",
    )  # fmt: skip


def _of_transformers(name: str, rest: str) -> EncoderSpec:
    """A local folder with the config.json of a vision model, or of a larger one with a `vision_config`; or the exact
    model_type of one, at the sizes of its configuration class.
    """
    from transformers import CONFIG_MAPPING

    folder = Path(rest)
    if not folder.is_dir() and "/" not in rest and rest not in CONFIG_MAPPING:
        raise unknown("transformers model_type", rest, list(CONFIG_MAPPING))
    if rest in CONFIG_MAPPING:
        config: dict[str, Any] = CONFIG_MAPPING[rest]().to_dict()
        given: dict[str, Any] = {"source": f"transformers {transformers.__version__} {rest}, sizes of its config class"}
    else:
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SpaceError(f"encoder {name!r} needs {folder}/config.json of a transformers model: {error}") from error
        settings = folder / "preprocessor_config.json"
        pixels = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
        given = {"mean": pixels.get("image_mean"), "std": pixels.get("image_std")}
        given["weights"] = str(folder) if list(folder.glob("*.safetensors")) else None
        given["source"] = f"transformers config in {folder}"
    config = config.get("vision_config") or config.get("audio_config") or config
    kept = {key: value for key, value in config.items() if key not in {"architectures", "transformers_version"}}
    half = [0.5] * 3
    given |= {"mean": given.get("mean") or half, "std": given.get("std") or half}
    given |= {"mels": int(config.get("num_mel_bins", 0))}
    given["source"] += "; described on the meta device"
    return describe(name, {"transformers": kept}, **given)


def describe(name: str, where: dict[str, Any], **given: Any) -> EncoderSpec:
    """The entry of an encoder that `where` builds: {"timm": ...} or {"transformers": config}, and `feature_index`.

    With `mels`, of sound. Raises: SpaceError where its output is no square grid, or row, of tokens.
    """
    draft = EncoderSpec.model_validate(
        {"name": name, "width": 1, "stride": 1, "params": 1, "family": "vit", **where, **given}
    )
    problems = []
    for attempt in _attempts(draft):
        try:
            return _vit(attempt) if attempt.family == "vit" else _polynomial(attempt)
        except Exception as error:  # whatever a foreign network raises on an unusual size
            problems.append(f"{attempt.family}: {' '.join(str(error).split())[:150]}")
    form = "row of tokens of equal blocks" if draft.mels else "square grid of tokens"
    raise SpaceError(f"encoder {name!r} gives no {form} ({'; '.join(problems)}); choose another")


def _attempts(draft: EncoderSpec) -> list[EncoderSpec]:
    """As a stack of equal blocks, as a network with a final feature map, and by its last intermediate map."""
    other = draft.model_copy(update={"family": "cnn"})
    if draft.feature_index is not None:
        return [other]
    if draft.mels:
        return [draft]
    return [draft, other, other.model_copy(update={"feature_index": -1})] if draft.timm else [draft, other]


def _run(spec: EncoderSpec, resolution: int) -> tuple[VisionEncoder, Tensor, int]:
    """(encoder, its raw output, FLOPs of one image) on the meta device."""
    with torch.device("meta"):
        encoder = VisionEncoder(spec, resolution).eval()
        shape = (spec.mels, resolution) if spec.mels else (3, resolution, resolution)
        images = torch.zeros(1, *shape)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        features = encoder.features(images)
    return encoder, features, counter.get_total_flops()


def _vit(draft: EncoderSpec) -> EncoderSpec:
    """Raises: ValueError where the blocks are not equal or compute something else than the closed form."""
    encoder, features, _ = _run(draft, TRIAL)
    if features.ndim != 3:
        raise ValueError("its output is a map")
    tokens, width = int(features.shape[1]), int(features.shape[2])
    beside = 0 if draft.mels else tokens - math.isqrt(tokens) ** 2  # a row of sound has any length
    prefix = int(getattr(encoder.backbone, "num_prefix_tokens", beside))
    side = tokens if draft.mels else math.isqrt(tokens - prefix)
    if (not draft.mels and side**2 != tokens - prefix) or TRIAL % side:
        raise ValueError(f"{tokens} tokens are no square grid")
    stride = TRIAL // side
    blocks = list(encoder.blocks)
    sizes = {count(block) for block in blocks}
    if len(sizes) != 1:
        raise ValueError("its blocks differ in size")
    matrices = [module for module in blocks[0].modules() if isinstance(module, nn.Linear)]
    ffn = max(module.in_features for module in matrices if module.out_features == width)
    feed_forward = sum(module.weight.numel() for module in matrices) - 4 * width**2
    smaller, _, flops = _run(draft, 8 * stride)
    growth = count(encoder) - count(smaller)
    grid = draft.model_copy(update={"width": width, "stride": stride, "prefix_tokens": prefix})
    learned = growth == grid.position_params(TRIAL) - grid.position_params(8 * stride)
    spec = grid.model_copy(
        update={
            "learned_positions": learned,
            "class_token": prefix > 0 and getattr(encoder.backbone, "cls_token", 0) is not None,
            "params": count(encoder) - (grid.position_params(TRIAL) if learned else 0),
            "layers": len(blocks), "block_params": sizes.pop(), "heads": _heads(encoder, blocks[0]),
            "ffn": ffn, "gated": feed_forward == 3 * width * ffn, "plain_blocks": _is_plain(encoder.backbone),
        }
    )  # fmt: skip
    expected = vision_flops(spec, 8 * stride)
    if abs(expected / flops - 1) > TOLERANCE:
        raise ValueError(f"it computes {flops} FLOPs where equal blocks would compute {expected}")
    return spec


def _is_plain(backbone: nn.Module) -> bool:
    """Whether its blocks are those of timm's VisionTransformer, with its plain attention."""
    from timm.layers import Attention  # type: ignore[attr-defined]
    from timm.models.vision_transformer import Block, VisionTransformer

    if not isinstance(backbone, VisionTransformer):
        return False
    return all(type(block) is Block and type(block.attn) is Attention for block in backbone.blocks)


def _heads(encoder: VisionEncoder, block: Any) -> int:
    return int(block.attn.num_heads if encoder.spec.timm else encoder.backbone.config.num_attention_heads)


def _polynomial(draft: EncoderSpec) -> EncoderSpec:
    """FLOPs as a polynomial in the pixels through three sizes, and the peak of one module's input and output."""
    encoder, features, _ = _run(draft, TRIAL)
    if features.ndim != 4 or features.shape[2] != features.shape[3] or TRIAL % features.shape[2]:
        raise ValueError(f"its output of shape {tuple(features.shape)} is no square map")
    stride = TRIAL // int(features.shape[2])
    sizes = [side * stride for side in SIDES]
    runs = [_run(draft, size)[1:] for size in sizes]
    if any(found.shape[2] != side for (found, _), side in zip(runs, SIDES, strict=True)):
        raise ValueError("its output does not grow with the image")
    pixels = np.array([size**2 for size in sizes], dtype=np.float64)
    flops = np.array([flops for _, flops in runs], dtype=np.float64)
    square, linear, constant = np.polyfit(pixels / pixels[0], flops, 2) / np.array([pixels[0] ** 2, pixels[0], 1.0])
    return draft.model_copy(
        update={
            "width": int(features.shape[1]), "stride": stride, "params": count(encoder),
            "flops_per_image": float(round(constant)), "flops_per_pixel": round(float(linear), 4),
            "flops_per_pixel_squared": float(f"{square:.9g}") if square * pixels[0] > 1e-6 * linear else 0.0,
            "activation_bytes_per_pixel": round(_peak_activations(encoder, TRIAL) * 4 / TRIAL**2, 4),
            "prefix_tokens": 0, "class_token": False,
        }
    )  # fmt: skip


def _peak_activations(encoder: VisionEncoder, resolution: int) -> int:
    """Numbers in input and output of the module for which they are most."""
    peak = 0

    def watch(_module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal peak
        if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            peak = max(peak, inputs[0].numel() + output.numel())

    for module in encoder.modules():
        if not list(module.children()):
            module.register_forward_hook(watch)
    encoder.features(torch.zeros(1, 3, resolution, resolution, device="meta"))
    return peak


def count(module: nn.Module) -> int:
    """Parameters of a part."""
    return sum(weight.numel() for weight in module.parameters())
