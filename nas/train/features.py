"""What a model is shown of a split's images, kept on disk: tokens of a frozen encoder, or the pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nas.cache_folder import cache_folder
from nas.model import MultimodalLM, Processor
from nas.model.vision import VisionEncoder
from nas.train.data import Split

BATCH = 16
Progress = Callable[[int, int], None]


def encoder_features(model: MultimodalLM, processor: Processor, split: Split, seed: int, progress: Progress) -> Tensor:
    """(images, N, D) float16. A random encoder's features are tied to the seed of its weights."""
    spec = model.encoder_spec
    weights = spec.weights or f"random-{seed}"
    name = f"{spec.name}-{weights}-{processor.resolution}"
    if not isinstance(model.vision, VisionEncoder) or model.vision.factor > 1 or model.candidate.encoder_depth:
        name += f"-{model.candidate.key}"  # tokens of this very design
    return _kept(name, processor, split, model.vision_tokens, progress)


def pixels(model: MultimodalLM, processor: Processor, split: Split, progress: Progress) -> Tensor:
    """(images, 3, R, R) float16, normalised, for an encoder that trains."""
    spec = model.encoder_spec
    scale = hashlib.sha256(repr((spec.mean, spec.std)).encode()).hexdigest()[:6]
    return _kept(f"pixels-{scale}-{processor.resolution}", processor, split, lambda images: images, progress)


def _kept(
    name: str, processor: Processor, split: Split, compute: Callable[[Tensor], Tensor], progress: Progress
) -> Tensor:
    from filelock import FileLock

    images = hashlib.sha256("".join("/".join(path.parts[-3:]) for path in split.images).encode()).hexdigest()[:10]
    file = cache_folder("features") / f"{split.name}-{images}-{name}.npy"
    with FileLock(f"{file}.lock"):
        kept = read_kept(file)
        if kept is None:
            chunks = []
            for start in range(0, len(split.images), BATCH):
                pictures = [processor.read(path) for path in split.images[start : start + BATCH]]
                with torch.inference_mode():
                    chunks.append(compute(processor.pixels(pictures)).half().numpy())
                progress(min(start + BATCH, len(split.images)), len(split.images))
            partial = file.with_suffix(".partial.npy")
            np.save(partial, np.concatenate(chunks))
            partial.replace(file)
            kept = read_kept(file)
    assert kept is not None
    return kept


def read_kept(file: Path) -> Tensor | None:
    """None where there is none, or no array of numbers; what is not looked at is not read."""
    try:
        return torch.from_numpy(np.load(file, allow_pickle=False, mmap_mode="c"))
    except (OSError, ValueError, TypeError):
        return None
