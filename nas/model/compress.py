"""Token compression before the projector: (B, N, D) tokens of a square grid -> (B, N / factor, D').

Every method hands on fewer tokens; none masks. What merges the most similar tokens, here or inside of the encoder, is
in `nas.model.merging`, what reads the encoder's attention in `nas.model.prune`, and what drops tokens inside of the
language model in `nas.model.fastv`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.model.grid import nearly_square, to_grid, to_tokens
from nas.model.merging import TokenMerging
from nas.model.sound import Stacking, TimePooling


class NoCompression(nn.Module):
    """Tokens as they are."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens


class AveragePooling(nn.Module):
    """Mean of each k x k block, factor k^2. DeCo (Yao et al. 2024, arXiv 2405.20985) with an integer ratio."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, tokens: Tensor) -> Tensor:
        return to_tokens(F.avg_pool2d(to_grid(tokens), math.isqrt(self.factor)))


class MaxPooling(nn.Module):
    """Largest value of each k x k block, channel by channel; factor k^2."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(math.isqrt(factor))

    def forward(self, tokens: Tensor) -> Tensor:
        return to_tokens(self.pool(to_grid(tokens)))


class AdaptivePooling(nn.Module):
    """Mean over overlapping cells of the most square grid of N / factor cells, for any factor that divides N."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, tokens: Tensor) -> Tensor:
        return to_tokens(F.adaptive_avg_pool2d(to_grid(tokens), nearly_square(tokens.shape[1] // self.factor)))


class PixelShuffle(nn.Module):
    """Space to depth: (B, N, D) -> (B, N / r^2, r^2 D). Idefics3 / SmolVLM connector, InternVL."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.shuffle = nn.PixelUnshuffle(math.isqrt(factor))

    def forward(self, tokens: Tensor) -> Tensor:
        return to_tokens(self.shuffle(to_grid(tokens)))


class Matryoshka(AveragePooling):
    """Nested average pooling, M3 (Cai et al. 2024, arXiv 2405.17430): the scale is chosen after training.

    A training step draws one of `scales` (`nas.train.nested`) and calls `choose`; the chosen scale runs. Else it is
    the candidate's own factor.
    """

    def choose(self, factor: int, side: int) -> None:
        """Raises: ValueError where the factor is not one of `scales`."""
        if factor not in self.scales(side):
            raise ValueError(f"the scale must be one of {self.scales(side)}, but got {factor}")
        self.factor = factor

    @staticmethod
    def scales(side: int) -> list[int]:
        """Factors of every nested grid of a square grid of that side, finest first."""
        return [block**2 for block in range(1, side + 1) if side % block == 0]


class FrameMerging(nn.Module):
    """Mean over each `frames` following grids of a video: (B, V, N, D) -> (B, ceil(V / frames), N, D).

    Temporal pooling as in LLaMA-VID and PLLaVA (Xu et al. 2024, arXiv 2404.16994); a last, shorter group has a mean of
    its own, so that a single image stays as it is.
    """

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, views: Tensor) -> Tensor:
        if self.frames == 1 or views.shape[1] == 1:
            return views
        groups = torch.split(views, self.frames, 1)
        return torch.stack([group.mean(1) for group in groups], 1)


METHODS: dict[str, Callable[[int], nn.Module]] = {
    "avgpool": AveragePooling, "maxpool": MaxPooling, "adaptive": AdaptivePooling, "pixel-shuffle": PixelShuffle,
    "matryoshka": Matryoshka, "tome": TokenMerging,
}  # fmt: skip


# Of sound, whose tokens are one row.
ALONG_TIME: dict[str, Callable[[int], nn.Module]] = {
    "avgpool": TimePooling, "maxpool": partial(TimePooling, largest=True), "pixel-shuffle": Stacking,
    "tome": TokenMerging,
}  # fmt: skip


def build_compressor(name: str, factor: int, width: int, *, sound: bool = False) -> tuple[nn.Module, int]:
    """The compression module and the width of the tokens that leave it; what works elsewhere hands tokens on."""
    methods = ALONG_TIME if sound else METHODS
    if name not in methods:
        return NoCompression(), width
    return methods[name](factor), width * (factor if name == "pixel-shuffle" else 1)
