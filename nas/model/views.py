"""One image seen several times: tiles and a thumbnail, scales, or two encoders; the tokens of all of it in one tensor.

A set is one square grid of tokens; compression and projector run on each. B images of V views make S sets each.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.model.grid import to_grid, to_tokens
from nas.model.vision import VisionEncoder
from search_spaces.candidate import Candidate
from search_spaces.catalogue import EncoderSpec


def build_vision(candidate: Candidate, first: EncoderSpec, second: EncoderSpec | None) -> VisionEncoder | MultiView:
    """What turns pixels into tokens: one encoder, or several views of it and of a second one."""
    encoder = VisionEncoder(
        first, candidate.resolution, candidate.encoder_depth, candidate.compression, candidate.compression_factor
    )
    if candidate.tiling == "none" and candidate.temporal_factor == 1 and second is None:
        return encoder
    other = None if second is None else VisionEncoder(second, candidate.resolution)
    return MultiView(encoder, other, candidate.fusion, candidate.tiles if candidate.tiling == "s2" else 1)


class MultiView(nn.Module):
    """(B, 3, R, R) or (B, V, 3, R, R) -> (B, S N, D'): one or two encoders on every view, and a `Join` behind them."""

    def __init__(self, first: VisionEncoder, second: VisionEncoder | None, fusion: str, scales: int) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.join = Join(fusion, scales)

    @property
    def encoders(self) -> list[VisionEncoder]:
        """The first, and the second where there is one."""
        return [self.first] if self.second is None else [self.first, self.second]

    def forward(self, pixel_values: Tensor) -> Tensor:
        """pixel_values: (B, V, 3, R, R), or (B, 3, R, R) where V is 1 or all views lie flat."""
        views = pixel_values.flatten(0, 1) if pixel_values.ndim == 5 else pixel_values
        second = self.second
        other = None if second is None else second(renormalised(views, self.first.spec, second.spec))
        tokens: Tensor = self.join(self.first(views), other)
        images = len(tokens) if self.join.scales > 1 else len(pixel_values)
        return tokens.reshape(images, -1, tokens.shape[-1])


class Join(nn.Module):
    """Tokens of every view (V, N, D1), and of a second encoder (V, N2, D2) -> (V, sets, N, D'); no parameters.

    Two encoders: the second's map is brought to the first's grid by area. `channel` puts both side by side, D' = D1 +
    D2 (Prismatic, Karamcheti et al. 2024). `sequence` makes two sets of each view, each encoder in channels of its own,
    so that the projector's first matrix is one matrix an encoder (as the two adapters of MoF, Tong et al. 2024).
    S2 (Shi et al. 2024, arXiv 2403.13043): views are the s x s crops of scales s = 1, 2, ..; each scale's map is
    stitched, brought to the grid by area, and all scales are put side by side: N stays, D' is D times the scales, and V
    becomes the number of images.
    """

    def __init__(self, fusion: str, scales: int) -> None:
        super().__init__()
        self.fusion, self.scales = fusion, scales

    def forward(self, own: Tensor, other: Tensor | None) -> Tensor:
        tokens = self._fused(own, other)
        if self.scales == 1:
            return tokens
        crops = sum(scale**2 for scale in range(1, self.scales + 1))
        return self._stitched(tokens.reshape(-1, crops, *tokens.shape[1:]))

    def _fused(self, own: Tensor, other: Tensor | None) -> Tensor:
        """(V, sets, N, D'), sets being 2 where two encoders' tokens follow each other."""
        if other is None:
            return own.unsqueeze(1)
        side = math.isqrt(own.shape[1])
        other = to_tokens(F.adaptive_avg_pool2d(to_grid(other), (side, side)))
        if self.fusion == "channel":
            return torch.cat([own, other], -1).unsqueeze(1)
        width = own.shape[-1]
        return torch.stack([F.pad(own, (0, other.shape[-1])), F.pad(other, (width, 0))], 1)

    def _stitched(self, tokens: Tensor) -> Tensor:
        """(B, crops, sets, N, D) -> (B, sets, N, scales D)."""
        images, _, sets, count, width = tokens.shape
        side, start, maps = round(count**0.5), 0, []
        for scale in range(1, self.scales + 1):
            crops = tokens[:, start : start + scale**2].reshape(images, scale, scale, sets, side, side, width)
            start += scale**2
            large = crops.permute(0, 3, 6, 1, 4, 2, 5).reshape(images * sets, width, scale * side, scale * side)
            maps.append(F.avg_pool2d(large, scale))
        return to_tokens(torch.cat(maps, 1)).reshape(images, sets, count, -1)


def renormalised(views: Tensor, first: EncoderSpec, second: EncoderSpec) -> Tensor:
    """Pixels normalised for one encoder, with the mean and deviation of another."""
    (mean, std), (to_mean, to_std) = (
        (views.new_tensor(spec.mean).view(3, 1, 1), views.new_tensor(spec.std).view(3, 1, 1))
        for spec in (first, second)
    )
    return (views * std + mean - to_mean) / to_std
