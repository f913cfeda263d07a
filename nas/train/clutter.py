"""easy-vqa's pictures small among emoji: what fills a picture alone is told by any encoder."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from nas.cache_folder import cache_folder
from nas.train.data import Split, VqaData
from nas.train.emoji_pictures import NAMES, PLACES, empty_canvas, inside, paste_emoji, save

VERSION = 1  # of the pictures: part of the folder's name
SMALLEST, LARGEST = 44, 60  # pixels of the picture of easy-vqa
BESIDE = 4  # emoji in other cells


def among_emoji(data: VqaData, seed: int = 0) -> VqaData:
    """The same pictures in one cell of nine, and of their questions the open ones: yes and no are guessed by the text.

    Drawn once into the user's cache. Raises: MissingPackageError.
    """
    return VqaData(f"{data.name}-among-emoji", _split(data.train, seed), _split(data.test, seed))


def _split(split: Split, seed: int) -> Split:
    folder = cache_folder(f"clutter-{VERSION}") / f"{split.name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    files = tuple(_drawn(path, folder / f"{path.stem}.png", f"{split.name} {seed}") for path in split.images)
    return replace(split, images=files, questions=tuple(one for one in split.questions if one.is_open))


def _drawn(source: Path, file: Path, seed: str) -> Path:
    from PIL import Image

    if not file.is_file():
        generator = random.Random(f"{seed} {file.stem}")
        canvas = empty_canvas()
        own, *others = generator.sample(PLACES, 1 + BESIDE)
        size = generator.randint(SMALLEST, LARGEST)
        with Image.open(source) as picture:
            small = picture.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
        canvas.paste(small, inside(own, size, generator))
        for place, name in zip(others, generator.sample(NAMES, BESIDE), strict=True):
            paste_emoji(canvas, name, place, generator)
        save(canvas, file)
    return file
