"""InternVL 1.5's dynamic tiling: the grid of tiles whose aspect ratio is closest, and a thumbnail behind."""

from __future__ import annotations

from PIL import Image

from embodied.lvlm.resolution.base import Layout
from embodied.lvlm.resolution.tiles import Size, ViewByView, checked, cut_tiles, positive, resize


class DynamicTiles(ViewByView):
    """Chen et al. 2024, arXiv 2404.16821; as `GotOcr2ImageProcessor` of transformers, which InternVL uses.

    The picture is squashed onto the grid. A single tile shows the whole picture already and gets no thumbnail.

    Args:
        width: D of a token.
        side: pixels of a tile.
        min_tiles, max_tiles: bounds of the number of tiles, without the thumbnail.
        thumbnail: whether the whole picture is added as a last view.
        resample: PIL's filter.

    Raises:
        ValueError: bounds out of order.
    """

    def __init__(
        self,
        width: int,
        side: int = 448,
        min_tiles: int = 1,
        max_tiles: int = 12,
        thumbnail: bool = True,
        resample: str = "bicubic",
    ) -> None:
        super().__init__(width, resample)
        positive(self, side=side, min_tiles=min_tiles)
        if max_tiles < min_tiles:
            raise ValueError(f"DynamicTiles: max_tiles {max_tiles} is less than min_tiles {min_tiles}")
        self.side, self.thumbnail = side, thumbnail
        sides = range(1, max_tiles + 1)
        grids = [(rows, columns) for columns in sides for rows in sides if min_tiles <= rows * columns <= max_tiles]
        self.grids = sorted(grids, key=lambda grid: grid[0] * grid[1])

    def plan(self, height: int, width: int) -> Layout:
        checked(self, height, width)
        rows, columns = self._closest(height, width)
        alone = rows * columns == 1
        count = rows * columns + (self.thumbnail and not alone)
        overview = 0 if alone else count - 1 if self.thumbnail else None
        return Layout((height, width), ((self.side, self.side),) * count, (rows, columns), overview)

    def cut(self, picture: Image.Image, layout: Layout) -> list[Image.Image]:
        rows, columns = layout.tiles
        views = cut_tiles(resize(picture, (rows * self.side, columns * self.side), self.resample), rows, columns)
        if layout.overview == len(views):
            views.append(resize(picture, (self.side, self.side), self.resample))
        return views

    def _closest(self, height: int, width: int) -> Size:
        """The grid closest in aspect ratio; of equals a larger one, as long as the picture fills half of it."""
        best, smallest = (1, 1), float("inf")
        for rows, columns in self.grids:
            difference = abs(width / height - columns / rows)
            fills = height * width > 0.5 * self.side**2 * rows * columns
            if difference < smallest or (difference == smallest and fills):
                best, smallest = (rows, columns), difference
        return best
