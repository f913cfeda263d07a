"""The probe batch: the few inputs that every proxy of a candidate sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ProbeBatch:
    """pixel_values (B, 3, R, R); input_ids (B, T) with image placeholders; labels (B, T), -100 = not scored."""

    pixel_values: Tensor
    input_ids: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def inputs(self) -> dict[str, Tensor]:
        """What the forward pass takes, without labels."""
        return {"pixel_values": self.pixel_values, "input_ids": self.input_ids}

    def split(self, parts: int) -> list[ProbeBatch]:
        """`parts` batches of equal size; a sum or mean over them must not depend on `parts`."""
        if len(self) % parts:
            raise ValueError(f"a batch of {len(self)} cannot be split into {parts} equal parts")
        chunks = zip(*(t.chunk(parts) for t in (self.pixel_values, self.input_ids, self.labels)), strict=True)
        return [ProbeBatch(*chunk) for chunk in chunks]


def random_batch(
    *, size: int, resolution: int, visual_tokens: int, text_tokens: int, vocab: int, image_token_id: int, seed: int
) -> ProbeBatch:
    """Smooth random images and random text; the last half of the text is labelled."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(size, 3, 8, 8, generator=generator)
    pixels = torch.nn.functional.interpolate(coarse, size=(resolution, resolution), mode="bicubic")
    text = torch.randint(8, vocab, (size, text_tokens), generator=generator)
    image = torch.full((size, visual_tokens), image_token_id)
    ids = torch.cat([image, text], dim=1)
    labels = ids.clone()
    labels[:, : visual_tokens + text_tokens // 2] = -100
    return ProbeBatch(pixels, ids, labels)
