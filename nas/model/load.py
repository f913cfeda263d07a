"""Weights from the catalogue's packages, a local folder or the hub into a built model, with a report of every tensor.

Safetensors only; the hub is asked only where `hub` says so. Layers are picked, narrower parts take the leading rows and
columns of the published ones, experts start as copies of the dense FFN (Komatsuzaki et al. 2023, sparse upcycling).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from nas.errors import ConfigError
from nas.model.vision import VisionEncoder
from search_spaces.catalogue import EncoderSpec

POSITIONS = ("pos_embed", "position_embeddings", "position_embedding.weight")
FUSED = ("qkv_proj", "gate_up_proj")  # several matrices in one: their leading rows are those of the first only


@dataclass(slots=True)
class LoadReport:
    """What became of the tensors of one part, by their names in the model."""

    source: str
    taken: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)  # the leading rows and columns of a wider tensor
    resampled: list[str] = field(default_factory=list)  # interpolated to another grid
    copied: list[str] = field(default_factory=list)  # experts made of the dense part
    random: list[str] = field(default_factory=list)
    unused: int = 0  # tensors of the source that no part of the model wants, dropped layers among them

    def __str__(self) -> str:
        counts = {name: len(getattr(self, name)) for name in ("taken", "cut", "resampled", "copied", "random")}
        said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        left = f" ({', '.join(self.random[:4])}{', ...' if len(self.random) > 4 else ''} left random)" * bool(
            self.random
        )
        return f"{self.source}: {said}, {self.unused} unused{left}"


def read_language_model(source: str, *, hub: bool) -> dict[str, Tensor]:
    """The state of the causal language model of a folder or repository. Raises: ConfigError."""
    from transformers import AutoModelForCausalLM

    _allowed(source, hub)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source, local_files_only=not hub, use_safetensors=True, dtype=torch.float32, trust_remote_code=False
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"cannot load a language model from {source}: {' '.join(str(error).split())[:300]}") from None
    state: dict[str, Tensor] = model.state_dict()
    return state


def read_encoder(source: str, spec: EncoderSpec, *, hub: bool) -> dict[str, Tensor]:
    """The state of a vision encoder by the names of its library; safetensors only. Raises: ConfigError.

    One of timm: `model.safetensors` as it is. One of transformers: as transformers reads the folder, whose model may be
    the encoder itself, or a larger one (CLIP, Llava) that holds it.
    """
    _allowed(source, hub)
    if spec.transformers:
        return _encoder_within(source, str(spec.transformers["model_type"]), hub)
    from safetensors.torch import load_file

    file = Path(source) / "model.safetensors"
    if not Path(source).is_dir():
        from huggingface_hub import hf_hub_download

        file = Path(hf_hub_download(source, "model.safetensors"))
    if not file.is_file():
        raise ConfigError(f"weights must be in safetensors, but {source} holds no model.safetensors")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ConfigError(f"weights must be in safetensors, but {file} is not: {error}") from None


def _encoder_within(source: str, model_type: str, hub: bool) -> dict[str, Tensor]:
    from transformers import AutoModel, PreTrainedModel

    try:
        whole = AutoModel.from_pretrained(
            source, local_files_only=not hub, use_safetensors=True, dtype=torch.float32, trust_remote_code=False
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"cannot load an encoder from {source}: {' '.join(str(error).split())[:300]}") from None
    parts = [part for part in whole.modules() if isinstance(part, PreTrainedModel)]
    for part in parts:
        if part.config.model_type == model_type:
            own = part.get_encoder() if part.config.is_encoder_decoder else part  # Whisper's decoder is left behind
            state: dict[str, Tensor] = own.state_dict()
            return state
    kinds = sorted({part.config.model_type for part in parts})
    raise ConfigError(f"encoder weights must be of a {model_type}, but {source} holds {', '.join(kinds)}")


def _allowed(source: str, hub: bool) -> None:
    if not hub and not Path(source).is_dir():
        raise ConfigError(f"no folder {source!r}; to load a repository of that name from the hub, add --hub")


def fill_language_model(
    decoder: nn.Module, state: Mapping[str, Tensor], kept: Sequence[int], tied: bool, source: str
) -> LoadReport:
    """Copies what fits into a decoder in place; layer i of it is layer kept[i] of the source."""
    report, wanted = LoadReport(source), set()
    with torch.no_grad():
        for name, target in decoder.state_dict().items():
            if name == "lm_head.weight" and tied:
                continue
            theirs = _source_name(name, kept)
            found = state.get(theirs)
            if found is None and ".experts." in name:
                found = _dense_part(theirs, state)
                if found is not None and found.shape == target.shape[1:]:
                    target.copy_(found.expand_as(target))
                    report.copied.append(name)
                    continue
            wanted.add(theirs)
            _fill(name, target, found, report)
    dense = {f"{_source_name(name, kept).split('.experts.')[0]}." for name in report.copied}
    report.unused = sum(name not in wanted and not name.startswith(tuple(dense) or ("\0",)) for name in state)
    return report


def _source_name(name: str, kept: Sequence[int]) -> str:
    parts = name.split(".")
    if "layers" in parts:
        place = parts.index("layers") + 1
        parts[place] = str(kept[int(parts[place])])
    return ".".join(parts)


def _dense_part(name: str, state: Mapping[str, Tensor]) -> Tensor | None:
    """The dense FFN's matrix that an expert's starts as: gate above up, or down."""
    block, _, part = name.partition(".experts.")
    wanted = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}.get(part, ())
    found = [state.get(f"{block}.{matrix}.weight") for matrix in wanted]
    return None if not found or any(tensor is None for tensor in found) else torch.cat(found)  # type: ignore[arg-type]


def _fill(name: str, target: Tensor, found: Tensor | None, report: LoadReport) -> None:
    if found is None or found.ndim != target.ndim:
        report.random.append(name)
    elif found.shape == target.shape:
        target.copy_(found)
        report.taken.append(name)
    elif all(own <= theirs for own, theirs in zip(target.shape, found.shape, strict=True)) and not any(
        part in name for part in FUSED
    ):
        target.copy_(found[tuple(slice(size) for size in target.shape)])
        report.cut.append(name)
    else:
        report.random.append(name)


def fill_encoder(vision: VisionEncoder, state: dict[str, Tensor], prefix_tokens: int, source: str) -> LoadReport:
    """Copies what fits into an encoder in place; its position embedding is resampled to its grid.

    Blocks that are merged for deployment (FastViT) are filled from those of training.
    """
    own = vision.backbone.state_dict()
    report, state = LoadReport(source), dict(state)
    if vision.spec.timm_args.get("inference_mode") and not set(own) <= set(state):
        state = _merged(vision.spec, vision.size, state)
    for name in own:
        if name.endswith(POSITIONS) and name in state and own[name].shape != state[name].shape:
            state[name] = _resampled(state[name], own[name].shape, prefix_tokens, vision.grid)
            report.resampled.append(name)
    with torch.no_grad():
        for name, target in own.items():
            _fill(name, target, state.get(name), report)
    for name in report.resampled:
        report.taken.remove(name)
    report.unused = sum(name not in own for name in state)
    return report


def _resampled(positions: Tensor, shape: torch.Size, prefix_tokens: int, grid: tuple[int, int]) -> Tensor:
    """(1, T, D) or (T, D) of a square grid to another grid; those of class and register tokens, if any, stay."""
    from timm.layers import resample_abs_pos_embed  # type: ignore[attr-defined]

    def prefix(tokens: int) -> int:
        return min(prefix_tokens, tokens - math.isqrt(tokens) ** 2)

    table = positions.reshape(1, -1, shape[-1])
    resampled: Tensor = resample_abs_pos_embed(table, new_size=list(grid), num_prefix_tokens=prefix(table.shape[1]))
    return resampled.reshape(shape)


def _merged(spec: EncoderSpec, size: tuple[int, int], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of an encoder whose parallel branches are one convolution each (Vasu et al. 2023, FastViT)."""
    from timm.utils.model import reparameterize_model

    arguments = {name: value for name, value in spec.timm_args.items() if name != "inference_mode"}
    trained = VisionEncoder(spec.model_copy(update={"timm_args": arguments}), size).eval().backbone
    trained.load_state_dict(state, strict=False)
    merged: dict[str, Tensor] = reparameterize_model(trained).state_dict()
    return merged
