"""Token compression before the projector: (B, N, D) tokens of a square grid -> (B, N / factor, D').

Every method hands on fewer tokens; none masks. What needs the encoder's attention is in `nas.model.prune`, what drops
tokens inside the language model in `nas.model.prune_decoder`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.model.grid import nearly_square, to_grid, to_tokens


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


class TokenMerging(nn.Module):
    """Bipartite soft matching, ToMe (Bolya et al. 2023, arXiv 2210.09461, section 3), at the encoder's output.

    A round splits the tokens in turn into A and B, ties each of A to the nearest of B by cosine, and merges the r
    strongest ties into means weighted by how many patches a token stands for. Rounds of at most half of the tokens run
    until N / factor are left, in raster order. Differs from the paper: one place instead of every block, so that the
    similarity is that of the tokens, not of keys, no attention has to be made proportional to sizes, and the encoder
    itself is not sped up. Any encoder can be merged so.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, tokens: Tensor) -> Tensor:
        left, sizes = tokens.shape[1] // self.factor, torch.ones_like(tokens[..., :1])
        while tokens.shape[1] > left:
            tokens, sizes = merge(tokens, sizes, min(tokens.shape[1] // 2, tokens.shape[1] - left))
        return tokens


def merge(tokens: Tensor, sizes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """One round that removes `count` tokens: (B, n, D), (B, n, 1) -> (B, n - count, D), (B, n - count, 1)."""
    metric = F.normalize(tokens, dim=-1)
    nearness, partner = (metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)).max(-1)  # (B, |A|)
    order = nearness.topk(nearness.shape[-1], -1).indices
    gone, stay = order[:, :count], order[:, count:]
    weighted = torch.cat([tokens * sizes, sizes], -1)  # (B, n, D + 1)
    a, b = weighted[:, ::2], weighted[:, 1::2]
    width = weighted.shape[-1]
    target = partner.gather(1, gone).unsqueeze(-1).expand(-1, -1, width)
    b = b.scatter_add(1, target, a.gather(1, gone.unsqueeze(-1).expand(-1, -1, width)))
    kept = torch.cat([a.gather(1, stay.unsqueeze(-1).expand(-1, -1, width)), b], 1)
    odd = 2 * torch.arange(b.shape[1], device=tokens.device).expand(len(tokens), -1) + 1
    raster = torch.cat([2 * stay, odd], 1).sort(-1).indices.unsqueeze(-1).expand(-1, -1, width)
    kept = kept.gather(1, raster)
    return kept[..., :-1] / kept[..., -1:], kept[..., -1:]


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


METHODS: dict[str, type[nn.Module]] = {
    "avgpool": AveragePooling, "maxpool": MaxPooling, "adaptive": AdaptivePooling, "pixel-shuffle": PixelShuffle,
    "matryoshka": Matryoshka, "tome": TokenMerging,
}  # fmt: skip


def build_compressor(name: str, factor: int, width: int) -> tuple[nn.Module, int]:
    """The compression module and the width of the tokens that leave it; what works elsewhere hands tokens on."""
    if name not in METHODS:
        return NoCompression(), width
    return METHODS[name](factor), width * (factor if name == "pixel-shuffle" else 1)
