"""Questions about grids of real emoji pictures: what stands where, which, how many, of what kind, on which colour.

Of the nine cells of a grid six are filled: no emoji twice, of the four categories none, one, two and three. So every
answer to "how many" is as frequent as any other; the others are drawn uniformly as well, and the text alone says
nothing. No grid of the test split occurs in training.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nas.cache_folder import cache_folder
from nas.train.data import Question, Split, VqaData
from nas.train.emoji_pictures import (
    CATEGORY_OF,
    CELL,
    CODES,
    NAMES,
    PLACES,
    Place,
    empty_canvas,
    paste_emoji,
    save,
)

VERSION = 2  # of the pictures: part of the folder's name
COUNTS = (0, 1, 2, 3)  # emoji of each category in a grid, in any order
COLOURS = {"pink": (255, 170, 200), "green": (150, 220, 150), "blue": (140, 180, 250), "orange": (255, 190, 110)}
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
SIDES: dict[str, Place] = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}
KINDS = ("at", "category", "colour", "beside", "many", "there")
ASKED = {"train": 2, "test": 4}  # questions of a kind about one grid


@dataclass(frozen=True, slots=True)
class Cell:
    """One emoji on its background."""

    name: str
    colour: str


Grid = dict[Place, Cell]  # a place that is missing is empty


def load(train_images: int = 3000, test_images: int = 400, seed: int = 0) -> VqaData:
    """Twelve questions a training image, twice as many a test image. Drawn once. Raises: MissingPackageError."""
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
        for kind, text, answer in _questions(grid, ASKED[name], generator)
    ]
    folder = cache_folder(f"emoji-grids-{VERSION}") / f"{name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    files = tuple(_drawn(grid, folder / f"{index:05}.png", f"{name} {seed}") for index, grid in enumerate(grids))
    return Split(name, files, tuple(questions))


def _grid(generator: random.Random) -> Grid:
    counts = dict(zip(CODES, generator.sample(COUNTS, len(COUNTS)), strict=True))
    names = [name for category, count in counts.items() for name in generator.sample(sorted(CODES[category]), count)]
    chosen = generator.sample(PLACES, len(names))
    return {place: Cell(name, generator.choice(list(COLOURS))) for place, name in zip(chosen, names, strict=True)}


def _questions(grid: Grid, asked: int, generator: random.Random) -> Iterator[tuple[str, str, str]]:
    """(kind, text, answer): `asked` of each kind at most."""
    for place in generator.sample(sorted(grid), asked):
        yield "at", f"what at {_name(place)}?", grid[place].name
    for place in generator.sample(sorted(grid), asked):
        yield "category", f"category at {_name(place)}?", CATEGORY_OF[grid[place].name]
    for place in generator.sample(sorted(grid), asked):
        yield "colour", f"color behind {grid[place].name}?", grid[place].colour
    pairs = list(_neighbours(grid))
    for side, known, other in generator.sample(pairs, min(asked, len(pairs))):
        yield "beside", f"what {side} {known}?", other
    counts = Counter(CATEGORY_OF[cell.name] for cell in grid.values())
    for category in generator.sample(sorted(CODES), asked):
        yield "many", f"how many {category}?", str(counts[category])
    present = {cell.name for cell in grid.values()}
    for name in generator.sample(sorted(present), asked // 2):
        yield "there", f"any {name}?", "yes"
    for name in generator.sample(sorted(set(NAMES) - present), asked // 2):
        yield "there", f"any {name}?", "no"


def _neighbours(grid: Grid) -> Iterator[tuple[str, str, str]]:
    """(side, emoji, what stands on that side of it)."""
    for (row, column), cell in sorted(grid.items()):
        for side, (down, right) in SIDES.items():
            if (other := grid.get((row + down, column + right))) is not None:
                yield side, cell.name, other.name


def _name(place: Place) -> str:
    return f"{ROWS[place[0]]} {COLUMNS[place[1]]}"


def _drawn(grid: Grid, file: Path, seed: str) -> Path:
    """The grid as a PNG, its emoji turned, shifted and scaled, so that no two pictures are the same."""
    if not file.is_file():
        generator = random.Random(f"{seed} {file.stem}")
        canvas = empty_canvas()
        for place, cell in sorted(grid.items()):
            row, column = place
            canvas.paste(COLOURS[cell.colour], (column * CELL, row * CELL, (column + 1) * CELL, (row + 1) * CELL))
            paste_emoji(canvas, cell.name, place, generator)
        save(canvas, file)
    return file
