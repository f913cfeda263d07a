"""Encoders: any backbone of timm or transformers behind one token interface, (B, 3, H, W) -> (B, N, D)."""

from __future__ import annotations

from inspect import signature
from typing import Any

from torch import Tensor, nn

from nas.cost_connector import IN_ENCODER
from nas.model.merging import MergingBlocks
from nas.model.prune import PRUNERS, LastAttention, importance
from nas.model.sound import sound_backbone
from search_spaces.catalogue import EncoderSpec


class VisionEncoder(nn.Module):
    """Tokens of an image on a `grid` of one token a stride, in raster order; prefix tokens are dropped.

    One of sound takes a spectrogram (B, mels, R), and its grid is one row.

    Candidates see squares; (H, W) may differ here. A transformers ViT then keeps the position table of its config and
    interpolates it at every call.

    A convolutional encoder is cut after the feature map that is read, a ViT after block `depth` (0: none is cut), whose
    output goes through the encoder's own last norm; pooling heads of timm's ViTs are left out. A `compression`
    inside of it hands on N / factor tokens: chosen by the last block's attention, or merged in every block.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        resolution: int | tuple[int, int],
        depth: int = 0,
        compression: str = "none",
        factor: int = 1,
    ) -> None:
        """`resolution`: pixels of each side of a square, or (H, W)."""
        super().__init__()
        self.factor = factor if compression in IN_ENCODER else 1
        self.pruner = PRUNERS.get(compression)
        self.spec = spec
        self.size = (resolution, resolution) if isinstance(resolution, int) else resolution
        if spec.timm:
            backbone = _timm_backbone(spec, self.size)
        elif spec.mels:
            backbone = sound_backbone(spec, self.size[1], depth)
        else:
            backbone = _transformers_backbone(spec, self.size, depth)
        if spec.timm and depth:
            backbone.blocks = backbone.blocks[:depth]
        if compression == "tome-blocks":
            backbone.blocks = MergingBlocks(backbone.blocks, spec.prefix_tokens, factor)
        self.backbone: Any = backbone

    @property
    def encoders(self) -> list[VisionEncoder]:
        """Itself: the one encoder of a design without a second."""
        return [self]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        if self.spec.mels:
            return self.spec.grid(self.size[1])
        return self.size[0] // self.spec.stride, self.size[1] // self.spec.stride

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks of a ViT, in order."""
        if self.spec.timm:
            return self.backbone.blocks  # type: ignore[no-any-return]
        return longest_list(self.backbone)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """pixel_values: (B, 3, R, R) or (B, V, 3, R, R) -> (B, V N, D); N / factor of each where tokens are pruned.

        Of sound: (B, mels, R) or (B, V, mels, R).
        """
        if pixel_values.ndim == (4 if self.spec.mels else 5):  # several pictures: their tokens follow each other
            tokens: Tensor = self(pixel_values.flatten(0, 1))
            return tokens.reshape(len(pixel_values), -1, tokens.shape[-1])
        if self.pruner is not None:
            return self._pruned(pixel_values)
        features = self.features(pixel_values)
        if features.ndim == 4:
            return features.flatten(2).transpose(1, 2)
        return features[:, self.spec.prefix_tokens :]

    def _pruned(self, pixel_values: Tensor) -> Tensor:
        assert self.pruner is not None
        prefix = self.spec.prefix_tokens
        with LastAttention() as attention:
            tokens = self.features(pixel_values)[:, prefix:]
        scores = importance(attention.queries, attention.keys, prefix, prefix > 0 and self.spec.class_token)
        return self.pruner(tokens, scores, attention.keys[:, :, prefix:], tokens.shape[1] // self.factor)

    def features(self, pixel_values: Tensor) -> Tensor:
        """(B, prefix + N, D), or (B, D, g, g)."""
        index = self.spec.feature_index
        if self.spec.mels:
            return self.backbone(pixel_values).last_hidden_state  # type: ignore[no-any-return]
        if self.spec.transformers:
            stretched = {} if self.size[0] == self.size[1] else _stretching(self.backbone)
            return self.backbone(pixel_values=pixel_values, **stretched).last_hidden_state  # type: ignore[no-any-return]
        if index is None:
            return self.backbone.forward_features(pixel_values)  # type: ignore[no-any-return]
        return self.backbone.forward_intermediates(  # type: ignore[no-any-return]
            pixel_values, indices=[index], intermediates_only=True, stop_early=True
        )[0]


def longest_list(module: nn.Module) -> nn.ModuleList:
    """The longest list of layers of a network."""
    return max((part for part in module.modules() if isinstance(part, nn.ModuleList)), key=len)


def _stretching(backbone: nn.Module) -> dict[str, bool]:
    """The argument by which transformers' ViTs interpolate their positions, where they do not always."""
    embeds = next((part for part in backbone.modules() if type(part).__name__.endswith("Embeddings")), backbone)
    return {name: True for name in signature(embeds.forward).parameters if name == "interpolate_pos_encoding"}


def _timm_backbone(spec: EncoderSpec, size: tuple[int, int]) -> Any:
    import timm

    arguments: dict[str, Any] = dict(spec.timm_args)
    if spec.family == "vit":
        arguments |= {"img_size": size, "global_pool": ""}
        if spec.timm.startswith("naflex"):
            del arguments["img_size"]
    backbone: Any = timm.create_model(spec.timm, num_classes=0, **arguments)
    if spec.feature_index is not None:
        backbone.prune_intermediate_layers([spec.feature_index], prune_head=True)
    return backbone


def _transformers_backbone(spec: EncoderSpec, size: tuple[int, int], depth: int) -> Any:
    from transformers import AutoConfig, AutoModel

    fields = {name: value for name, value in spec.transformers.items() if name != "model_type"}
    config: Any = AutoConfig.for_model(spec.transformers["model_type"], **fields)
    if hasattr(config, "image_size") and size[0] == size[1]:
        pair = isinstance(config.image_size, list | tuple)
        config.image_size = type(config.image_size)(size) if pair else size[0]
    if hasattr(config, "vision_use_head"):
        config.vision_use_head = False  # SigLIP's pooling head
    if depth:
        config.num_hidden_layers = depth
    return AutoModel.from_config(config)  # type: ignore[no-untyped-call]
