"""Vision encoders: any timm backbone behind one token interface, images (B, 3, R, R) -> tokens (B, N, D)."""

from __future__ import annotations

from typing import Any

import timm
from torch import Tensor, nn

from search_spaces.catalogue import EncoderSpec


class VisionEncoder(nn.Module):
    """Tokens of a square image on a grid of side R / stride, in raster order; prefix tokens are dropped.

    A convolutional encoder is cut after the feature map that is read; a ViT has no pooling head.
    """

    def __init__(self, spec: EncoderSpec, resolution: int) -> None:
        super().__init__()
        self.feature_index = spec.feature_index
        self.prefix_tokens = spec.prefix_tokens
        arguments: dict[str, Any] = dict(spec.timm_args)
        if spec.family == "vit":
            arguments["img_size"] = resolution
        backbone: Any = timm.create_model(spec.timm, num_classes=0, **arguments)
        if spec.feature_index is not None:
            backbone.prune_intermediate_layers([spec.feature_index], prune_head=True)
        self.backbone: Any = backbone

    def forward(self, pixel_values: Tensor) -> Tensor:
        """pixel_values: (B, 3, R, R) -> (B, N, D)."""
        if self.feature_index is None:
            tokens: Tensor = self.backbone.forward_features(pixel_values)
            return tokens[:, self.prefix_tokens :]
        features: Tensor = self.backbone.forward_intermediates(
            pixel_values, indices=[self.feature_index], intermediates_only=True, stop_early=True
        )[0]
        return features.flatten(2).transpose(1, 2)
