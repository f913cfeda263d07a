"""One picture cut into the views that an encoder sees: tiles and a thumbnail, or the crops of several scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.model.grid import nearly_square

if TYPE_CHECKING:
    from PIL.Image import Image


def tile_grid(size: tuple[int, int], tiling: str, tiles: int, resolution: int, *, fit: bool = False) -> tuple[int, int]:
    """(rows, columns) of the tiles of a picture of (width, height) pixels.

    `grid`: always the most square one. `any-resolution` (LLaVA-NeXT, Liu et al. 2024): the one that keeps most pixels
    of the picture and then wastes fewest; among those of all `tiles`, or with `fit` among all up to that many.
    """
    if tiling == "grid":
        return nearly_square(tiles)
    width, height = size
    allowed = [(rows, columns) for rows in range(1, tiles + 1) for columns in range(1, tiles // rows + 1)]
    if not fit:
        allowed = [(rows, columns) for rows, columns in allowed if rows * columns == tiles]

    def merit(grid: tuple[int, int]) -> tuple[int, int]:
        across, down = grid[1] * resolution, grid[0] * resolution
        scale = min(across / width, down / height)
        shown = int(width * scale) * int(height * scale)
        kept = min(shown, width * height) if fit else shown
        return kept, kept - across * down

    return max(allowed, key=merit)


def cut(image: Image, tiling: str, tiles: int, resolution: int, *, fit: bool = False) -> list[Image]:
    """The views of one picture, each resolution x resolution: the thumbnail first, then its tiles in raster order.

    Tiles are cut from the picture that is stretched to their grid. s2: the s x s crops of every scale s, from one on.
    """
    grids = [(1, 1)]
    if tiling == "s2":
        grids += [(scale, scale) for scale in range(2, tiles + 1)]
    elif tiling != "none":
        grids.append(tile_grid(image.size, tiling, tiles, resolution, fit=fit))
    return [view for rows, columns in grids for view in _tiles(image.convert("RGB"), rows, columns, resolution)]


def _tiles(image: Image, rows: int, columns: int, resolution: int) -> list[Image]:
    from PIL import Image as Pillow

    large = image.resize((columns * resolution, rows * resolution), Pillow.Resampling.BICUBIC)
    return [
        large.crop((x * resolution, y * resolution, (x + 1) * resolution, (y + 1) * resolution))
        for y in range(rows)
        for x in range(columns)
    ]
