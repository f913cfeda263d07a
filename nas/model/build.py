"""From a candidate to a network, with random or pretrained weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from nas.cost_vision import second_encoder
from nas.model import pretrained
from nas.model.language import candidate_layers
from nas.model.load import LoadReport, fill_encoder, fill_language_model, read_encoder, read_language_model
from nas.model.multimodal import MultimodalConfig, MultimodalLM
from nas.model.quantised import quantise
from nas.model.vision import VisionEncoder
from search_spaces import catalogue
from search_spaces.candidate import Candidate
from search_spaces.catalogue import EncoderSpec, LanguageModelSpec

WRITES = ("o_proj", "down_proj", "out_proj", ".dense", ".fc2", ".w2")  # matrices that write into the residual stream
KEPT = ("A_log", "dt_proj.weight")  # of state spaces, whose own initial values matter


@dataclass(frozen=True, slots=True)
class Sources:
    """Where weights come from instead of the catalogue's packages: a folder, or a repository where `hub` allows it."""

    encoder: str | None = None
    lm: str | None = None
    hub: bool = False


def build(
    candidate: Candidate,
    *,
    weights: Literal["pretrained", "random"] = "pretrained",
    seed: int = 0,
    sources: Sources = Sources(),
    quantised: bool = True,
    decoder_shapes: bool = False,
) -> MultimodalLM:
    """The candidate's network in evaluation mode, float32. The caller's random state is left as found.

    `pretrained` loads what the catalogue has real weights for, or the folder of the candidate's own language model;
    `sources` loads others. Projectors and parts without weights are random under `seed`; `model.reports` says what
    became of each tensor. With `decoder_shapes` the language model has no values.

    Raises: MissingPackageError, SpaceError, ConfigError.
    """
    encoder, language = catalogue.encoder(candidate.encoder), catalogue.language_model(candidate.lm)
    second = second_encoder(candidate)
    language.resized(candidate.lm_ffn, candidate.lm_heads, candidate.lm_experts)  # mistakes are told from here
    config = MultimodalConfig(
        candidate=candidate.to_dict(),
        encoder=encoder.model_dump(mode="json"),
        language_model=language.model_dump(mode="json"),
        second_encoder=second.model_dump(mode="json") if second else None,
    )
    load = weights == "pretrained"
    loads_encoder = sources.encoder is not None or (load and encoder.weights is not None)
    loads_language = not decoder_shapes and (sources.lm is not None or (load and language.weights is not None))
    # Drawing random weights that are overwritten at once is most of the time; only the projector keeps its own.
    overwritten = (
        load
        and all(part is None or _is_packaged(part.weights) for part in (encoder, language, second))
        and sources == Sources()
        and not _is_resized(candidate)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with no_init_weights() if overwritten else nullcontext():
            model = MultimodalLM(config, quantised=False, decoder_shapes=decoder_shapes)
        if overwritten:
            _draw_weights(model.projector)
        elif not loads_language and not decoder_shapes:
            _draw_language_model(model.language_model)
        if not torch.empty(0).is_meta:
            model.language_model.tie_weights()
    if loads_encoder:
        model.reports["encoder"] = load_encoder(model.vision.encoders[0], encoder, sources)
    if load and second is not None and second.weights is not None:
        model.reports["second encoder"] = load_encoder(model.vision.encoders[1], second)
    if loads_language:
        model.reports["language model"] = _load_language_model(model, language, sources)
    if quantised and not decoder_shapes:
        quantise(model.language_model, candidate.lm_weights)
    model.train(False)
    return model


def _is_packaged(weights: str | None) -> bool:
    """Whether the catalogue's own, which fill every tensor; a folder may lack some."""
    return weights is not None and weights in pretrained.CONVERTERS


def _is_resized(candidate: Candidate) -> bool:
    return bool(candidate.lm_ffn or candidate.lm_heads or candidate.lm_experts)


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


def load_encoder(vision: VisionEncoder, spec: EncoderSpec, sources: Sources = Sources()) -> LoadReport:
    """Real weights into an encoder of any resolution; position embeddings are resampled to its grid."""
    source = sources.encoder or spec.weights
    assert source is not None
    if sources.encoder is not None or spec.transformers:
        return fill_encoder(vision, read_encoder(source, spec, hub=sources.hub), spec.prefix_tokens, source)
    from safetensors.torch import load_file

    return fill_encoder(vision, load_file(pretrained.weights(source)), spec.prefix_tokens, source)


def _load_language_model(model: MultimodalLM, published: LanguageModelSpec, sources: Sources) -> LoadReport:
    """The embedding, the norm and the kept layers only."""
    kept = candidate_layers(model.candidate, published)
    source = sources.lm or published.weights
    assert source is not None
    if sources.lm is not None or "/" in source:
        state: Mapping[str, Tensor] = read_language_model(source, hub=sources.hub)
    else:
        state = _Stored(pretrained.weights(source))
    return fill_language_model(model.language_model, state, kept, published.tied_embeddings, source)


class _Stored(Mapping[str, Tensor]):
    """A safetensors file whose tensors are read when asked for: dropped layers never are."""

    def __init__(self, file: Path) -> None:
        from safetensors import safe_open

        opened: Any = safe_open
        self.file = opened(file, framework="pt")
        self.names: list[str] = list(self.file.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        tensor: Tensor = self.file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
