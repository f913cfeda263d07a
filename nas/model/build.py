"""From a candidate to a network, with random or pretrained weights."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from nas.model import pretrained
from nas.model.language import candidate_layers
from nas.model.multimodal import MultimodalConfig, MultimodalLM
from nas.model.vision import VisionEncoder
from search_spaces import catalogue
from search_spaces.candidate import Candidate
from search_spaces.catalogue import EncoderSpec

WRITES = ("o_proj", "down_proj", "out_proj", ".dense", ".fc2", ".w2")  # matrices that write into the residual stream
KEPT = ("A_log", "dt_proj.weight")  # of state spaces, whose own initial values matter


def build(
    candidate: Candidate, *, weights: Literal["pretrained", "random"] = "pretrained", seed: int = 0
) -> MultimodalLM:
    """The candidate's network in evaluation mode, float32. The caller's random state is left as found.

    `pretrained` loads what the catalogue has real weights for; projectors and parts without weights are random
    under `seed`. Raises: MissingPackageError, SpaceError.
    """
    encoder = catalogue.encoder(candidate.encoder)
    language = catalogue.language_model(candidate.lm)
    config = MultimodalConfig(
        candidate=candidate.to_dict(),
        encoder=encoder.model_dump(mode="json"),
        language_model=language.model_dump(mode="json"),
    )
    load = weights == "pretrained"
    # Drawing random weights that are overwritten at once is most of the time; only the projector keeps its own.
    overwritten = load and encoder.weights is not None and language.weights is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with no_init_weights() if overwritten else nullcontext():
            model = MultimodalLM(config)
        if overwritten:
            _draw_weights(model.projector)
        elif not (load and language.weights):
            _draw_language_model(model.language_model)
        if not torch.empty(0).is_meta:
            model.language_model.tie_weights()
    if load and encoder.weights is not None:
        load_encoder(model.vision, encoder)
    if load and language.weights is not None:
        _load_language_model(model, pretrained.weights(language.weights))
    model.train(False)
    return model


def _draw_weights(part: nn.Module) -> None:
    """torch's own initial weights for every layer of a part."""
    for module in part.modules():
        if isinstance(module, nn.Linear | nn.LayerNorm | nn.Conv2d):
            module.reset_parameters()


def _draw_language_model(decoder: PreTrainedModel) -> None:
    """Normal weights of variance 1 / fan-in (LeCun et al. 1998), and 1 / (2 layers) of it where a layer writes into the
    residual stream (Radford et al. 2019, 2.3). transformers' fixed deviation of 0.02 suits widths of a thousand and up:
    at 128, the same training learned a third as much.
    """
    layers = decoder.config.num_hidden_layers
    for name, weight in decoder.named_parameters():
        if (weight.ndim == 2 and not name.endswith(KEPT)) or (weight.ndim == 3 and ".experts." in name):
            writes = name.removesuffix(".weight").endswith(WRITES)
            nn.init.normal_(weight, std=(weight.shape[-1] * (2 * layers if writes else 1)) ** -0.5)


def load_encoder(vision: VisionEncoder, spec: EncoderSpec) -> None:
    """Real weights into an encoder of any resolution; position embeddings are resampled to its grid."""
    from safetensors.torch import load_file
    from timm.layers import resample_abs_pos_embed  # type: ignore[attr-defined]

    assert spec.weights is not None
    state = load_file(pretrained.weights(spec.weights))
    own = vision.backbone.state_dict()
    if "pos_embed" in own and own["pos_embed"].shape != state["pos_embed"].shape:
        side = round((own["pos_embed"].shape[1] - spec.prefix_tokens) ** 0.5)
        state["pos_embed"] = resample_abs_pos_embed(
            state["pos_embed"], new_size=[side, side], num_prefix_tokens=spec.prefix_tokens
        )
    vision.backbone.load_state_dict({name: state[name] for name in own}, strict=True)


def _load_language_model(model: MultimodalLM, file: Path) -> None:
    """Copies the embedding, the norm and the kept layers only; layer i of the cut model is kept[i] of the file."""
    from safetensors import safe_open

    candidate, spec = model.candidate, model.language_spec
    kept = candidate_layers(candidate, spec)
    target: dict[str, Tensor] = model.language_model.state_dict()
    with safe_open(file, framework="pt") as stored, torch.no_grad():
        for name, tensor in target.items():
            if name == "lm_head.weight" and spec.tied_embeddings:
                continue
            parts = name.split(".")
            if parts[:2] == ["model", "layers"]:
                parts[2] = str(kept[int(parts[2])])
            tensor.copy_(stored.get_tensor(".".join(parts)))
