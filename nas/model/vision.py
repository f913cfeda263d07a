"""Vision encoders: any timm backbone behind one token interface, images (B, 3, R, R) -> tokens (B, N, D)."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from search_spaces.catalogue import EncoderSpec


class VisionEncoder(nn.Module):
    """Tokens of a square image on a grid of side R / stride, in raster order; prefix tokens are dropped.

    A convolutional encoder is built only up to the feature map that is read; a ViT without its pooling head.
    """

    def __init__(self, spec: EncoderSpec, resolution: int) -> None:
        super().__init__()
        self.width = spec.width
        self.grid = spec.grid_side(resolution)
        arguments: dict[str, Any] = dict(spec.timm_args)
        if spec.family == "cnn":
            self.backbone = timm.create_model(
                spec.timm, features_only=True, out_indices=[spec.feature_index], **arguments
            )
        else:
            self.backbone = timm.create_model(spec.timm, img_size=resolution, num_classes=0, **arguments)
        self.prefix_tokens = spec.prefix_tokens
        self.is_cnn = spec.family == "cnn"

    def forward(self, pixel_values: Tensor) -> Tensor:
        """pixel_values: (B, 3, R, R) -> (B, N, D) with N = grid * grid."""
        if self.is_cnn:
            features: Tensor = self.backbone(pixel_values)[0]
            return features.flatten(2).transpose(1, 2)
        tokens: Tensor = self.backbone.forward_features(pixel_values)
        return tokens[:, self.prefix_tokens :]


def resample_positions(embedding: Tensor, grid: int, prefix: int) -> Tensor:
    """Position embedding (1, prefix + g*g, D) resampled to a grid of side `grid`, as timm does on loading."""
    from timm.layers import resample_abs_pos_embed

    resampled: Tensor = resample_abs_pos_embed(embedding, new_size=[grid, grid], num_prefix_tokens=prefix)
    return resampled


def encoder_input(spec: EncoderSpec, resolution: int, batch: int = 1) -> Tensor:
    """A deterministic image batch (batch, 3, R, R) for counting and timing."""
    return torch.linspace(-1, 1, 3 * resolution * resolution).reshape(1, 3, resolution, resolution).repeat(batch, 1, 1, 1)
