"""Idefics3's tiling: as many tiles as the enlarged picture fills, row by row, and the whole picture behind.

Each view is a run of tokens of its own, before which the chat template names its row and column.
"""

from __future__ import annotations

import math

from PIL import Image

from embodied.lvlm.resolution.base import Layout
from embodied.lvlm.resolution.tiles import Size, ViewByView, checked, cut_tiles, positive, resize

LARGEST = 4096
"""Longest edge that the official processor resizes to, pixels."""


class RowColumnTiles(ViewByView):
    """Laurençon et al. 2024, arXiv 2408.12637; as `Idefics3ImageProcessor` of transformers.

    Args:
        width: D of a token.
        side: pixels of a tile.
        longest: pixels that the longer edge is resized to first, whatever it was.
        resample: PIL's filter.
    """

    def __init__(self, width: int, side: int = 364, longest: int = 1456, resample: str = "lanczos") -> None:
        super().__init__(width, resample)
        positive(self, side=side, longest=longest)
        self.side, self.longest = side, longest

    def plan(self, height: int, width: int) -> Layout:
        checked(self, height, width)
        full = self._canvas(height, width)
        rows, columns = full[0] // self.side, full[1] // self.side
        if rows * columns == 1:
            return Layout((height, width), (full,))
        count = rows * columns
        return Layout((height, width), ((self.side, self.side),) * (count + 1), (rows, columns), count)

    def cut(self, picture: Image.Image, layout: Layout) -> list[Image.Image]:
        height, width = layout.size
        enlarged = resize(picture, self._enlarged(height, width), self.resample)
        canvas = resize(enlarged, self._canvas(height, width), self.resample)
        if layout.tiles == (0, 0):
            return [canvas]
        return [*cut_tiles(canvas, *layout.tiles), resize(canvas, (self.side, self.side), self.resample)]

    def _enlarged(self, height: int, width: int) -> Size:
        """The longer edge `longest`, the other to match and even."""
        ratio = width / height
        if width >= height:
            width, height = self.longest, int(self.longest / ratio)
            height += height % 2
        else:
            height, width = self.longest, int(self.longest * ratio)
            width += width % 2
        height, width = max(height, 1), max(width, 1)
        ratio = width / height
        if width >= height and width > LARGEST:
            height, width = int(LARGEST / ratio), LARGEST
        elif height > width and height > LARGEST:
            height, width = LARGEST, int(LARGEST * ratio)
        return max(height, 1), max(width, 1)

    def _canvas(self, height: int, width: int) -> Size:
        """The enlarged size rounded up to whole tiles."""
        height, width = self._enlarged(height, width)
        ratio = width / height
        if width >= height:
            width = self._up(width)
            return self._up(int(width / ratio)), width
        height = self._up(height)
        return height, self._up(int(height * ratio))

    def _up(self, length: int) -> int:
        return math.ceil(length / self.side) * self.side
