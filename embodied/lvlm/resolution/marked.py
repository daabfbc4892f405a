"""Ovis's tiling: an overview and as few tiles as show nearly everything, with learned marks between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from embodied.lvlm.resolution.base import Layout, Resolution
from embodied.lvlm.resolution.tiles import Size, checked, cut_tiles, known_filter, learned, positive, resize

BEGIN, OVERVIEW_ENDS, COLUMN, ROW, END = range(5)
ENOUGH = 0.9
"""Share of the picture that tiles must show without shrinking it."""


class MarkedTiles(Resolution):
    """Lu et al. 2024, arXiv 2405.20797; as `Ovis2ImageProcessor` and `Ovis2Processor` of transformers.

    The overview stands between a mark that begins the picture and one that ends the overview; tiles of a row are
    divided by a mark, and so are rows; a last mark ends the picture. In Ovis the marks are the last words of the visual
    vocabulary: here they are this strategy's parameters.

    Args:
        width: D of a token.
        side: pixels of a tile.
        max_tiles: how many tiles there may be, without the overview; 1: the overview alone.
        resample: PIL's filter.
    """

    def __init__(self, width: int, side: int = 448, max_tiles: int = 9, resample: str = "bicubic") -> None:
        super().__init__(width)
        positive(self, side=side, max_tiles=max_tiles)
        self.side, self.max_tiles = side, max_tiles
        self.resample = known_filter(self, resample)
        self.marks = learned(width, 5)
        sides = range(1, max_tiles + 1)
        grids = [(rows, columns) for rows in sides for columns in sides if rows * columns <= max_tiles]
        self.grids = sorted(grids, key=lambda grid: grid[0] * grid[1])

    def plan(self, height: int, width: int) -> Layout:
        checked(self, height, width)
        # The official code takes the rows it has found for columns, and what it found for columns for rows
        columns, rows = self._covering(height, width)
        if rows * columns == 1:
            return Layout((height, width), ((self.side, self.side),))
        return Layout((height, width), ((self.side, self.side),) * (1 + rows * columns), (rows, columns))

    def cut(self, picture: Image.Image, layout: Layout) -> list[Image.Image]:
        overview = resize(picture, (self.side, self.side), self.resample)
        rows, columns = layout.tiles
        if not rows:
            return [overview]
        canvas = resize(picture, (rows * self.side, columns * self.side), self.resample)
        return [overview, *cut_tiles(canvas, rows, columns)]

    def count(self, layout: Layout, grids: Sequence[Size]) -> int:
        marks = 3 + max(layout.tiles[0] * layout.tiles[1] - 1, 0)
        return marks + sum(rows * columns for rows, columns in grids)

    def arrange(self, tokens: Sequence[Tensor], layout: Layout, grids: Sequence[Size]) -> Tensor:
        marks = self.marks.to(tokens[0]).unsqueeze(1)
        parts = [marks[BEGIN], tokens[0], marks[OVERVIEW_ENDS]]
        for i, tile in enumerate(tokens[1:]):
            if i:
                parts.append(marks[COLUMN] if i % layout.tiles[1] else marks[ROW])
            parts.append(tile)
        return torch.cat([*parts, marks[END]])

    def _covering(self, height: int, width: int) -> Size:
        """The fewest rows and columns that show enough, of those the ones that show most; if none does, these."""
        shares = {grid: self._share(height, width, grid) for grid in self.grids}
        enough = [grid for grid, share in shares.items() if share > ENOUGH]
        if enough:
            return min(enough, key=lambda grid: (grid[0] * grid[1], -shares[grid]))
        return min(shares, key=lambda grid: (-shares[grid], grid[0] * grid[1]))

    def _share(self, height: int, width: int, grid: Size) -> float:
        """How much of a picture its tiles show, cut where the picture is and shrunk to a tile's side."""
        rows, columns = grid
        shown = 0.0
        for row in range(rows):
            tall = height // rows if row < rows - 1 else height - (rows - 1) * (height // rows)
            for column in range(columns):
                wide = width // columns if column < columns - 1 else width - (columns - 1) * (width // columns)
                long, short = float(max(tall, wide)), float(min(tall, wide))
                if long > self.side:
                    long, short = self.side, short / long * self.side
                shown += long * short
        return shown / (height * width)
