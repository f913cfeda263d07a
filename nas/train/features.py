"""What a model is shown of a split's images or clips, kept on disk: tokens of a frozen encoder, or the pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from nas.cache_folder import cache_folder
from nas.kept_arrays import kept_array, version_of
from nas.model import MultimodalLM, Processor
from nas.model.sound import cut_windows
from nas.model.vision import VisionEncoder
from nas.train.data import Split

BATCH = 16
Progress = Callable[[int, int], None]


class Clips(NamedTuple):
    """Tokens of clips of sound, which last unequally many windows."""

    tokens: Tensor  # (windows of all clips, N, D)
    starts: list[int]  # clip i is the windows starts[i] to starts[i + 1]

    def of(self, clips: Sequence[int]) -> tuple[Tensor, list[int]]:
        """(windows, N, D) of these clips, one after the other, and how many each has."""
        windows = [range(self.starts[clip], self.starts[clip + 1]) for clip in clips]
        return self.tokens[[place for one in windows for place in one]], list(map(len, windows))


def encoder_features(
    model: MultimodalLM, processor: Processor, split: Split, seed: int, progress: Progress
) -> Tensor | Clips:
    """(images, N, D) float16. A random encoder's features are tied to the seed of its weights."""
    spec = model.encoder_spec
    weights = version_of(spec.weights) if spec.weights else f"random-{seed}"
    name = f"{spec.name}-{weights}-{processor.resolution}"
    if not isinstance(model.vision, VisionEncoder) or model.vision.factor > 1 or model.candidate.encoder_depth:
        name += f"-{model.candidate.key}"  # tokens of this very design
    tokens = _kept(name, processor, split, model.vision_tokens, progress)
    if not processor.mels:
        return tokens
    counts = [len(cut_windows(processor.read(path), processor.resolution)) for path in split.images]
    return Clips(tokens, [0, *accumulate(counts)])


def pixels(model: MultimodalLM, processor: Processor, split: Split, progress: Progress) -> Tensor:
    """(images, 3, R, R) float16, normalised, for an encoder that trains."""
    spec = model.encoder_spec
    scale = hashlib.sha256(repr((spec.mean, spec.std)).encode()).hexdigest()[:6]
    return _kept(f"pixels-{scale}-{processor.resolution}", processor, split, lambda images: images, progress)


def _kept(
    name: str, processor: Processor, split: Split, compute: Callable[[Tensor], Tensor], progress: Progress
) -> Tensor:
    images = (
        split.digest or hashlib.sha256("".join("/".join(p.parts[-3:]) for p in split.images).encode()).hexdigest()[:10]
    )

    def all_of_them() -> Tensor:
        chunks = []
        for start in range(0, len(split.images), BATCH):
            pictures = [processor.read(path) for path in split.images[start : start + BATCH]]
            with torch.inference_mode():
                chunks.append(compute(processor.pixels(pictures, fit=processor.mels > 0)).half())
            progress(min(start + BATCH, len(split.images)), len(split.images))
        return torch.cat(chunks)

    return kept_array(cache_folder("features") / f"{split.name}-{images}-{name}.npy", all_of_them)
