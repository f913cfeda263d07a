"""Questions about grids of real emoji with a picture of easy-vqa among them, and a caption of each to learn from.

Of the four cells of a grid three hold emoji, none twice, on a ground of some colour, and one a picture of easy-vqa,
small. Of the three categories a grid has none, one and two emoji, in any order, so that every answer to "how many" is
as frequent as any other; everything else is drawn uniformly as well: the text alone says nothing. No grid and no
picture of the test split occurs in training, which has a caption a grid: what stands where, read line by line.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nas.cache_folder import cache_folder
from nas.train import data
from nas.train.data import CAPTION, Question, Split, VqaData
from nas.train.emoji_pictures import (
    CATEGORY_OF,
    CELL,
    CODES,
    NAMES,
    PLACES,
    Place,
    empty_canvas,
    paste,
    paste_emoji,
    save,
)

VERSION = 5  # of the pictures: part of the folder's name
COUNTS = (0, 1, 2)  # emoji of each category in a grid, in any order
COLOURS = {"pink": (255, 170, 200), "green": (150, 220, 150), "blue": (140, 180, 250), "orange": (255, 190, 110)}
ROWS, COLUMNS = ("top", "bottom"), ("left", "right")
SIDES: dict[str, Place] = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}
KINDS = ("at", "category", "colour", "beside", "many", "there", "easy-colour", "easy-shape")
# Questions of a kind about one grid at most, and as many "any X?" with the answer no as with yes. Of training
# fewer of those that a caption answers.
ASKED = {
    "train": {"at": 1, "category": 1, "colour": 2, "beside": 2, "many": 3, "there": 2},
    "test": {"at": 3, "category": 3, "colour": 3, "beside": 4, "many": 3, "there": 3},
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One emoji on its ground."""

    name: str
    colour: str


@dataclass(frozen=True)
class Grid:
    """Cells that are not named are empty."""

    cells: dict[Place, Cell]
    shape_at: Place
    shape: str  # colour and shape, in words
    picture: Path
    asked: tuple[Question, ...]  # easy-vqa's open questions about it


def load(train_images: int = 2400, test_images: int = 400, seed: int = 0) -> VqaData:
    """About 15 questions a training image, 25 a test image. Drawn once. Raises: MissingPackageError."""
    generator, shapes = random.Random(seed), data.load(10**6, 10**6)
    splits = (("train", shapes.train, train_images), ("test", shapes.test, test_images))
    return VqaData("emoji-grids", *[_split(name, own, count, generator) for name, own, count in splits])


def _split(name: str, shapes: Split, count: int, generator: random.Random) -> Split:
    grids = [_grid(generator, *shape) for shape in generator.sample(_shapes(shapes), count)]
    questions = [
        Question(index, text, answer, kind)
        for index, grid in enumerate(grids)
        for kind, text, answer in (*_questions(grid, ASKED[name], generator), *_captions(grid, name))
    ]
    folder = cache_folder(f"emoji-grids-{VERSION}")
    return Split(name, tuple(_drawn(grid, folder) for grid in grids), tuple(questions))


def _shapes(split: Split) -> list[tuple[str, Path, tuple[Question, ...]]]:
    """(words, picture, open questions) of those that are asked for both colour and shape."""
    found: dict[int, list[Question]] = defaultdict(list)
    for question in split.questions:
        if question.is_open:
            found[question.image].append(question)
    shapes = []
    for image, questions in found.items():
        words = {question.kind: question.answer for question in questions}
        if len(words) == 2:
            shapes.append((f"{words['easy-colour']} {words['easy-shape']}", split.images[image], tuple(questions)))
    return shapes


def _grid(generator: random.Random, shape: str, picture: Path, asked: tuple[Question, ...]) -> Grid:
    counts = dict(zip(CODES, generator.sample(COUNTS, len(COUNTS)), strict=True))
    names = [name for category, count in counts.items() for name in generator.sample(sorted(CODES[category]), count)]
    own, *others = generator.sample(PLACES, 1 + len(names))
    cells = {place: Cell(name, generator.choice(list(COLOURS))) for place, name in zip(others, names, strict=True)}
    return Grid(cells, own, shape, picture, asked)


def _questions(grid: Grid, asked: dict[str, int], generator: random.Random) -> Iterator[tuple[str, str, str]]:
    """(kind, text, answer)."""
    cells, pairs = grid.cells, list(_neighbours(grid.cells))
    for place in generator.sample(sorted(cells), asked["at"]):
        yield "at", f"what at {_name(place)}?", cells[place].name
    for place in generator.sample(sorted(cells), asked["category"]):
        yield "category", f"category at {_name(place)}?", CATEGORY_OF[cells[place].name]
    for place in generator.sample(sorted(cells), asked["colour"]):
        yield "colour", f"color behind {cells[place].name}?", cells[place].colour
    for side, known, other in generator.sample(pairs, asked["beside"]):
        yield "beside", f"what {side} {known}?", other
    counts = Counter(CATEGORY_OF[cell.name] for cell in cells.values())
    for category in generator.sample(sorted(CODES), asked["many"]):
        yield "many", f"how many {category}?", str(counts[category])
    present = {cell.name for cell in cells.values()}
    for answer, names in (("yes", present), ("no", set(NAMES) - present)):
        for name in generator.sample(sorted(names), asked["there"]):
            yield "there", f"any {name}?", answer
    for question in grid.asked:
        yield question.kind, question.text, question.answer


def _captions(grid: Grid, split: str) -> Iterator[tuple[str, str, str]]:
    """Every cell in words. Of training alone: no other question is answered by so many tokens."""
    if split == "train":
        words = {place: f"{cell.colour} {cell.name}" for place, cell in grid.cells.items()} | {
            grid.shape_at: grid.shape
        }
        yield CAPTION, "what in image?", " ".join(words[place] for place in sorted(words))


def _neighbours(cells: dict[Place, Cell]) -> Iterator[tuple[str, str, str]]:
    """(side, emoji, what stands on that side of it)."""
    for (row, column), cell in sorted(cells.items()):
        for side, (down, right) in SIDES.items():
            if (other := cells.get((row + down, column + right))) is not None:
                yield side, cell.name, other.name


def _name(place: Place) -> str:
    return f"{ROWS[place[0]]} {COLUMNS[place[1]]}"


def _drawn(grid: Grid, folder: Path) -> Path:
    """The grid as a PNG named by what it shows; its emoji are turned, shifted and scaled."""
    shown = repr((sorted(grid.cells.items()), grid.shape_at, grid.shape, grid.picture.parts[-3:]))
    file = folder / f"{hashlib.sha256(shown.encode()).hexdigest()[:16]}.png"
    if not file.is_file():
        from PIL import Image

        generator = random.Random(shown)
        canvas = empty_canvas()
        with Image.open(grid.picture) as picture:
            paste(canvas, picture.convert("RGB"), grid.shape_at, generator)
        for place, cell in sorted(grid.cells.items()):
            row, column = place
            canvas.paste(COLOURS[cell.colour], (column * CELL, row * CELL, (column + 1) * CELL, (row + 1) * CELL))
            paste_emoji(canvas, cell.name, place, generator)
        save(canvas, file)
    return file
