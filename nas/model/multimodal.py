"""MultimodalLM: vision encoder, token compression, projector and language model as one transformers model."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    DynamicCache,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from nas.cost_connector import IN_ENCODER
from nas.cost_vision import sets, token_width
from nas.model.compress import FrameMerging
from nas.model.cross import CrossAttention
from nas.model.fastv import FastV
from nas.model.language import build_language_model, cache_argument, candidate_layers, language_config
from nas.model.load import LoadReport
from nas.model.narrow_cache import StateCache, empty_cache
from nas.model.project import build_connector, connect
from nas.model.quantised import quantise
from nas.model.views import build_vision
from search_spaces.candidate import Candidate
from search_spaces.catalogue import EncoderSpec, LanguageModelSpec, LayerKind, SpaceError


class MultimodalConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Carries the candidate and the specs of its parts, so that an export reloads without the catalogue."""

    model_type = "nas_multimodal"

    def __init__(
        self,
        candidate: dict[str, Any] | None = None,
        encoder: dict[str, Any] | None = None,
        language_model: dict[str, Any] | None = None,
        second_encoder: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.candidate = candidate or {}
        self.encoder = encoder or {}
        self.language_model = language_model or {}
        self.second_encoder = second_encoder or {}
        kwargs.setdefault("tie_word_embeddings", bool(self.language_model.get("tied_embeddings", False)))
        super().__init__(**kwargs)

    def get_text_config(self, *_: Any, **__: Any) -> PretrainedConfig:
        """The language model's own config, which generation reads for its cache."""
        if not self.language_model:
            return PretrainedConfig()
        candidate = Candidate(**self.candidate)
        spec = shaped_spec(LanguageModelSpec(**self.language_model), candidate)
        return language_config(spec, candidate_layers(candidate, spec))


def shaped_spec(published: LanguageModelSpec, candidate: Candidate) -> LanguageModelSpec:
    """With the candidate's FFN, heads and experts; still at full depth."""
    return published.resized(candidate.lm_ffn, candidate.lm_heads, candidate.lm_experts)


def _fastv(decoder: PreTrainedModel, candidate: Candidate, kinds: set[LayerKind]) -> FastV | None:
    """Raises: SpaceError where some layer does not attend to everything."""
    if not candidate.prune_layer:
        return None
    if kinds != {"full_attention"}:
        raise SpaceError(f"fastv needs full attention in every decoder layer, but {candidate.lm} has {sorted(kinds)}")
    return FastV(decoder, candidate.prune_layer, candidate.compression_factor)


class MultimodalLM(PreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]
    """A candidate as a network. Image placeholders in `input_ids` are replaced by projected visual tokens.

    Shapes: B batch, N tokens of the grid, M visual tokens that enter the LM, T sequence, H hidden size.
    """

    config_class = MultimodalConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _supports_sdpa = True

    def __init__(self, config: MultimodalConfig, *, quantised: bool = True, decoder_shapes: bool = False) -> None:
        """`quantised=False` leaves the decoder's matrices wide, for weights that are loaded or trained first.

        With `decoder_shapes` the language model has shapes and no values: nothing is held or drawn for it.
        """
        super().__init__(config)
        self.reports: dict[str, LoadReport] = {}  # by part, filled where weights are loaded into it
        self.candidate = Candidate(**config.candidate)
        self.encoder_spec = EncoderSpec(**config.encoder)
        self.language_spec = shaped_spec(LanguageModelSpec(**config.language_model), self.candidate)
        candidate, hidden = self.candidate, self.language_spec.hidden
        second = EncoderSpec(**config.second_encoder) if config.second_encoder else None
        self.vision: Any = build_vision(candidate, self.encoder_spec, second)
        self.frames = FrameMerging(candidate.temporal_factor)
        self.compressor, self.projector = build_connector(
            candidate.projector, candidate.compression, candidate.compression_factor,
            token_width(candidate, self.encoder_spec, second), hidden,
            self.encoder_spec.grid(candidate.resolution),
        )  # fmt: skip
        with torch.device("meta") if decoder_shapes else nullcontext():
            self.language_model = build_language_model(
                self.language_spec, candidate_layers(candidate, self.language_spec), candidate.attention
            )
        if isinstance(self.projector, CrossAttention):
            self.projector.insert(self.decoder)
        kinds = {self.language_spec.layer_kinds[index] for index in candidate_layers(candidate, self.language_spec)}
        self.is_recurrent = bool(kinds & {"conv", "mamba", "mamba2", "hybrid"})
        self._has_attention = bool(kinds & {"full_attention", "sliding_attention", "hybrid"})
        self._cache_name = cache_argument(self.language_model)
        if quantised:
            quantise(self.language_model, candidate.lm_weights)
        self.fastv = _fastv(self.language_model, candidate, kinds)
        self._tied_weights_keys = {
            f"language_model.{name}": f"language_model.{source}"
            for name, source in (self.language_model._tied_weights_keys or {}).items()
        }
        self.post_init()  # type: ignore[no-untyped-call]

    @property
    def visual_tokens(self) -> int:
        """M, the visual tokens of one image that enter the language model; of its most tiles."""
        return sets(self.candidate) * self.encoder_spec.tokens(
            self.candidate.resolution, self.candidate.entering_factor
        )

    @property
    def set_tokens(self) -> int:
        """N of one grid of tokens, as the encoder hands it on."""
        factor = self.candidate.compression_factor if self.candidate.compression in IN_ENCODER else 1
        return self.encoder_spec.tokens(self.candidate.resolution, factor)

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Every part has initialised itself on construction."""

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.language_model.get_output_embeddings()  # type: ignore[no-any-return, no-untyped-call]

    @property
    def decoder(self) -> Any:
        """The language model without its vocabulary head."""
        return self.language_model.base_model

    def new_cache(self) -> DynamicCache | None:
        """An empty cache in the candidate's precision; None where transformers' own will do."""
        kind = self.candidate.kv_cache
        if self._has_attention and kind == "native" and not self.candidate.crosses:
            return None
        return empty_cache(self.language_model.config, kind)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """transformers' generate, with the candidate's cache."""
        if (cache := self.new_cache()) is not None and kwargs.get("use_cache") is not False:
            kwargs.setdefault("past_key_values", cache)
        return super().generate(*args, **kwargs)  # type: ignore[misc]

    def vocabulary_logits(self, states: Tensor) -> Tensor:
        """Last hidden states (..., H) -> logits (..., V), with the scaling that some forms put behind the head."""
        config: Any = self.language_model.config
        logits: Tensor = self.get_output_embeddings()(states) * getattr(config, "lm_head_multiplier", 1.0)
        cap = getattr(config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def vision_tokens(self, pixel_values: Tensor) -> Tensor:
        """pixel_values: (B, 3, R, R), or V views (B, V, 3, R, R) -> (B, N, D), the encoder's tokens of all views.

        Of sound: spectrograms (B, mels, R), or V windows (B, V, mels, R).
        """
        tokens: Tensor = self.vision(pixel_values)
        return tokens

    def project_tokens(self, tokens: Tensor) -> Tensor:
        """tokens: (B, N, D) -> (B, M, H), compressed and projected."""
        return connect(tokens, self.set_tokens, self.frames, self.compressor, self.projector)

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """pixel_values as of `vision_tokens` -> (B, M, H), what enters the language model."""
        return self.project_tokens(self.vision_tokens(pixel_values))

    def embed(self, input_ids: Tensor, visual: Tensor | None) -> Tensor:
        """input_ids: (B, T); visual: (B, M, H) or None -> (B, T, H) with placeholders replaced in order.

        With cross-attention there are none: `seeing` shows the tokens to the decoder.

        Raises: ValueError where the placeholders are not as many as the visual tokens.
        """
        embedded: Tensor = self.get_input_embeddings()(input_ids)
        if visual is None or self.candidate.crosses:
            return embedded
        places = input_ids == self.language_spec.image_token_id
        expected = visual.shape[0] * visual.shape[1]
        if not places.is_meta and int(places.sum()) != expected:
            raise ValueError(f"input_ids must hold {expected} image placeholders, but hold {int(places.sum())}")
        return embedded.masked_scatter(places.unsqueeze(-1).expand_as(embedded), visual.to(embedded.dtype))

    def seeing(self, visual: Tensor | None, cache: Any = None) -> AbstractContextManager[None]:
        """Around a run of the decoder: cross-attention reads `visual` (B, M, H), or what is in the cache."""
        projector = self.projector
        return projector.reading(visual, cache) if isinstance(projector, CrossAttention) else nullcontext()

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        vision_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """`vision_features` (B, N, D) are cached tokens of the encoder and take the place of `pixel_values`.

        With fastv, logits are those of the positions that are kept; training and `labels` see every token.
        """
        visual = None
        if self.fastv is not None:
            self.fastv.mark(None)
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("forward needs input_ids or inputs_embeds")
            if vision_features is not None:
                visual = self.project_tokens(vision_features)
            elif pixel_values is not None:
                visual = self.encode_images(pixel_values)
            inputs_embeds = self.embed(input_ids, visual)
            if self.fastv is not None and visual is not None and labels is None and not self.training:
                places = input_ids == self.language_spec.image_token_id
                self.fastv.mark(places, visual[..., 0].numel() // len(input_ids))
        if past_key_values is None and kwargs.get("use_cache") is not False:
            past_key_values = self.new_cache()
        with self.seeing(visual, past_key_values):
            return self.run_decoder(
                inputs_embeds, attention_mask, labels, {"past_key_values": past_key_values, **kwargs}
            )

    def run_decoder(
        self, embedded: Tensor, mask: Any, labels: Tensor | None, rest: dict[str, Any]
    ) -> CausalLMOutputWithPast:
        """The language model on embeddings (B, T, H); whatever it calls its cache, here it is past_key_values."""
        if self._cache_name != "past_key_values":
            rest[self._cache_name] = rest.pop("past_key_values")
            rest.pop("position_ids", None)
            mask = mask.get("linear_attention") if isinstance(mask, dict) else mask
            if getattr(rest[self._cache_name], "seen", 0):
                mask = None  # a state has taken padding in already
        found = self.language_model(inputs_embeds=embedded, attention_mask=mask, labels=labels, **rest)
        if isinstance(cache := rest.get(self._cache_name), StateCache):
            cache.seen += embedded.shape[1]
        if self._cache_name == "past_key_values":
            return found  # type: ignore[no-any-return]
        return CausalLMOutputWithPast(
            loss=found.loss, logits=found.logits, past_key_values=found.cache_params, hidden_states=found.hidden_states
        )

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Tensor, **kwargs: Any
    ) -> dict[str, Any]:
        """The image goes in with the first step only; afterwards its keys and values are in the cache."""
        image = {name: kwargs.pop(name, None) for name in ("pixel_values", "vision_features")}
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(  # type: ignore[misc]
            input_ids,  # type: ignore[arg-type]
            **kwargs,
        )
        if self.candidate.crosses:
            return inputs if hasattr(kwargs.get("past_key_values"), "visual") else inputs | image
        fed = inputs.get("input_ids")
        first_step = fed is not None and bool((fed == self.language_spec.image_token_id).any())
        return inputs | image if first_step else inputs


AutoConfig.register(MultimodalConfig.model_type, MultimodalConfig, exist_ok=True)
AutoModelForImageTextToText.register(MultimodalConfig, MultimodalLM, exist_ok=True)
