"""ProbeBatch: the few images and questions that a proxy shows to a model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from proxies.registry import ProxyError

IGNORED = -100  # label of a position that the loss leaves out


@dataclass(frozen=True, slots=True)
class ProbeBatch:
    """B samples of one length. Every row of `input_ids` holds one image's placeholders.

    `vision_features` are the encoder's tokens of `pixel_values`, made once where several proxies need them.
    """

    pixel_values: Tensor  # (B, 3, R, R), or spectrograms (B, mels, R)
    input_ids: Tensor  # (B, T)
    attention_mask: Tensor  # (B, T), 1 where a token is
    labels: Tensor  # (B, T), IGNORED where nothing is asked
    vision_features: Tensor | None = None  # (B, N, D)
    image_token_id: int | None = None  # the placeholder; where it is not known, all tokens count as text

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def targets(self) -> int:
        """Positions that enter the loss: labels are shifted by one, so the first never does."""
        return int((self.labels[:, 1:] != IGNORED).sum())

    def split(self, parts: int) -> list[ProbeBatch]:
        """The same samples in at most `parts` batches, in order."""
        if parts < 1:
            raise ProxyError(f"a batch splits into 1 part or more, but got {parts}")
        size = -(-len(self) // parts)
        return [self.take(start, start + size) for start in range(0, len(self), size)]

    def take(self, start: int, stop: int) -> ProbeBatch:
        """Samples start to stop - 1."""
        features = self.vision_features
        return ProbeBatch(
            self.pixel_values[start:stop],
            self.input_ids[start:stop],
            self.attention_mask[start:stop],
            self.labels[start:stop],
            None if features is None else features[start:stop],
            self.image_token_id,
        )

    def shapes(self) -> ProbeBatch:
        """The same batch on the meta device, for a model without values."""
        return ProbeBatch(
            self.pixel_values.to("meta"),
            self.input_ids.to("meta"),
            self.attention_mask.to("meta"),
            self.labels.to("meta"),
            None if self.vision_features is None else self.vision_features.to("meta"),
            self.image_token_id,
        )

    def inputs(self) -> dict[str, Tensor]:
        """Keyword arguments of the model's forward, without the labels."""
        image = {"pixel_values": self.pixel_values}
        if self.vision_features is not None:
            image = {"vision_features": self.vision_features}
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask, **image}

    def visual_tokens(self, model: nn.Module) -> Tensor:
        """What enters the language model: (B, M, H)."""
        if self.vision_features is not None:
            return model.project_tokens(self.vision_features)  # type: ignore[operator, no-any-return]
        return model.encode_images(self.pixel_values)  # type: ignore[operator, no-any-return]

    def with_vision_features(self, model: nn.Module) -> ProbeBatch:
        """The same batch with the encoder already run, where the model can reuse its output."""
        if self.vision_features is not None or not hasattr(model, "vision_tokens"):
            return self
        with torch.no_grad():
            return replace(self, vision_features=model.vision_tokens(self.pixel_values))  # type: ignore[operator]


def random_batch(
    *, resolution: int, visual_tokens: int, image_token_id: int, vocab: int,
    text_tokens: int = 8, size: int = 4, seed: int = 0, views: int = 1, mels: int = 0,
) -> ProbeBatch:  # fmt: skip
    """Smooth random images, of `views` views each, and random text with the image first; its last half is labelled.

    With `mels`, spectrograms (B, mels, R) of sound in place of images.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(size * views, 3, 8, 8, generator=generator)
    pixels = torch.nn.functional.interpolate(coarse, size=(mels or resolution, resolution), mode="bicubic")
    if mels:
        pixels = pixels[:, 0]
    if views > 1:
        pixels = pixels.reshape(size, views, 3, resolution, resolution)
    text = torch.randint(0, vocab - 1, (size, text_tokens), generator=generator)
    text += text >= image_token_id  # every id but the placeholder
    ids = torch.cat([torch.full((size, visual_tokens), image_token_id), text], dim=1)
    labels = ids.clone()
    labels[:, : visual_tokens + text_tokens // 2] = IGNORED
    return ProbeBatch(pixels, ids, torch.ones_like(ids), labels, image_token_id=image_token_id)
