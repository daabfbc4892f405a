"""The shape-adaptive crop of UReader and mPLUG-Owl3: the grid of tiles that overlaps most with the picture."""

from __future__ import annotations

from PIL import Image

from embodied.lvlm.resolution.base import Layout
from embodied.lvlm.resolution.tiles import Size, ViewByView, checked, cut_tiles, positive, resize


class ShapeAdaptiveCrop(ViewByView):
    """Ye et al. 2023, arXiv 2310.05126, and mPLUG-Owl3 (arXiv 2408.04840).

    Grids of up to `max_tiles` tiles are ranked by the intersection over union of canvas and picture, the picture once
    scaled to the canvas' width (shape, which weighs a hundred times) and once as it is (resolution). The picture is
    squashed onto the best one, and seen as a whole besides.

    Args:
        width: D of a token.
        side: pixels of a tile.
        max_tiles: how many tiles there may be, without the overview.
        overview_first: whether the overview comes before the tiles (UReader) or behind them (mPLUG-Owl3).
        resample: PIL's filter.
    """

    def __init__(
        self,
        width: int,
        side: int = 224,
        max_tiles: int = 20,
        overview_first: bool = True,
        resample: str = "bicubic",
    ) -> None:
        super().__init__(width, resample)
        positive(self, side=side, max_tiles=max_tiles)
        self.side, self.overview_first = side, overview_first
        sides = range(1, max_tiles + 1)
        grids = [(rows, columns) for rows in sides for columns in sides if rows * columns <= max_tiles]
        self.grids = sorted(grids, key=lambda grid: grid[0] * grid[1])

    def plan(self, height: int, width: int) -> Layout:
        checked(self, height, width)
        rows, columns = max(self.grids, key=lambda grid: self._score(grid, (height, width)))
        views = ((self.side, self.side),) * (rows * columns + 1)
        return Layout((height, width), views, (rows, columns), 0 if self.overview_first else rows * columns)

    def cut(self, picture: Image.Image, layout: Layout) -> list[Image.Image]:
        rows, columns = layout.tiles
        tiles = cut_tiles(resize(picture, (rows * self.side, columns * self.side), self.resample), rows, columns)
        overview = resize(picture, (self.side, self.side), self.resample)
        return [overview, *tiles] if self.overview_first else [*tiles, overview]

    def _score(self, grid: Size, size: Size) -> float:
        canvas = (grid[0] * self.side, grid[1] * self.side)
        same_width = (size[0] / size[1] * canvas[1], canvas[1])
        return 100 * _overlap(canvas, same_width) + _overlap(canvas, size)


def _overlap(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Intersection over union of two rectangles with a corner in common."""
    shared = min(a[0], b[0]) * min(a[1], b[1])
    return shared / (a[0] * a[1] + b[0] * b[1] - shared)
