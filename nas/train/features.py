"""Tokens of a frozen encoder for every image of a split, computed once and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nas.cache_folder import cache_folder
from nas.model import MultimodalLM, Processor
from nas.train.data import Split

BATCH = 16


def encoder_features(
    model: MultimodalLM, processor: Processor, split: Split, seed: int, progress: Callable[[int, int], None]
) -> Tensor:
    """(images, N, D) float16. A random encoder's features are tied to the seed of its weights."""
    from PIL import Image

    spec = model.encoder_spec
    weights = spec.weights or f"random-{seed}"
    images = hashlib.sha256("".join(path.name for path in split.images).encode()).hexdigest()[:10]
    name = f"easy-vqa-{split.name}-{images}-{spec.name}-{weights}-{processor.resolution}.npy"
    file = cache_folder("features") / name
    if not file.is_file():
        chunks = []
        for start in range(0, len(split.images), BATCH):
            pictures: list[Image.Image] = [Image.open(path) for path in split.images[start : start + BATCH]]
            with torch.inference_mode():
                chunks.append(model.vision_tokens(processor.pixels(pictures)).half().numpy())
            progress(min(start + BATCH, len(split.images)), len(split.images))
        partial = file.with_suffix(".partial.npy")
        np.save(partial, np.concatenate(chunks))
        partial.replace(file)
    return torch.from_numpy(np.load(file, allow_pickle=False))
