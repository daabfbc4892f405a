"""LLaVA-UHD's slices: of a size near the encoder's own, in the grid whose slices are closest to its aspect ratio."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from embodied.lvlm.resolution.base import Layout
from embodied.lvlm.resolution.tiles import Size, ViewByView, checked, cut_tiles, learned, positive, resize


class Slices(ViewByView):
    """Xu et al. 2024, arXiv 2403.11703; as MiniCPM-V's image processor in transformers.

    The ideal number of slices is the picture's area over the encoder's; grids of that many, one less and one more are
    scored by how far a slice's aspect ratio is from the encoder's square (logarithms), and the best is taken. Slices
    keep the picture's aspect ratio, so their size varies: the encoder must interpolate its positions (or not mind).

    Args:
        width: D of a token.
        side: pixels of the encoder's own resolution; a slice has about side x side pixels.
        unit: pixels that every side of a view is a multiple of: the patch, times what tokens are merged by.
        max_slices: bound of their number, without the overview.
        separators: whether learned tokens stand between slices of a row and between rows (the paper's `,` and newline).
        resample: PIL's filter.
    """

    def __init__(
        self,
        width: int,
        side: int = 336,
        unit: int = 14,
        max_slices: int = 6,
        separators: bool = True,
        resample: str = "bicubic",
    ) -> None:
        super().__init__(width, resample)
        positive(self, side=side, unit=unit, max_slices=max_slices)
        self.side, self.unit, self.max_slices = side, unit, max_slices
        self.separators = learned(width, 2) if separators else None

    def plan(self, height: int, width: int) -> Layout:
        checked(self, height, width)
        grid = self._grid(height, width)
        if grid is None:
            return Layout((height, width), (self._near(height, width, enlarge=True),))
        overview = self._near(height, width, enlarge=False)
        rows, columns = grid
        slice_ = self._near(_nearest(height, rows) / rows, _nearest(width, columns) / columns, enlarge=True)
        return Layout((height, width), (overview, *[slice_] * (rows * columns)), grid)

    def cut(self, picture: Image.Image, layout: Layout) -> list[Image.Image]:
        overview = resize(picture, layout.views[0], self.resample)
        if layout.tiles == (0, 0):
            return [overview]
        (rows, columns), (height, width) = layout.tiles, layout.views[1]
        return [overview, *cut_tiles(resize(picture, (rows * height, columns * width), self.resample), rows, columns)]

    def runs(self, layout: Layout, grids: Sequence[Size]) -> list[int]:
        if self.separators is None or layout.tiles == (0, 0):
            return super().runs(layout, grids)
        return [sum(super().runs(layout, grids)) + layout.tiles[0] * layout.tiles[1] - 1]

    def arrange(self, tokens: Sequence[Tensor], layout: Layout, grids: Sequence[Size]) -> Tensor:
        if self.separators is None or layout.tiles == (0, 0):
            return super().arrange(tokens, layout, grids)
        comma, newline = self.separators.to(tokens[0])
        parts, columns = [tokens[0]], layout.tiles[1]
        for i, slice_ in enumerate(tokens[1:]):
            if i:
                parts.append((comma if i % columns else newline).unsqueeze(0))
            parts.append(slice_)
        return torch.cat(parts)

    def _grid(self, height: int, width: int) -> Size | None:
        """Rows and columns of slices; None: the picture is small enough."""
        ideal = min(math.ceil(height * width / self.side**2), self.max_slices)
        if ideal <= 1:
            return None
        best, smallest = (1, 1), float("inf")
        for count in (ideal - 1, ideal, ideal + 1):
            if count == 1 or count > self.max_slices:
                continue
            for rows in (n for n in range(1, count + 1) if count % n == 0):
                difference = abs(math.log(width / height) - math.log(count // rows / rows))
                if difference < smallest or (difference == smallest and rows > best[0]):
                    best, smallest = (rows, count // rows), difference
        return best

    def _near(self, height: float, width: float, enlarge: bool) -> Size:
        """A size of the same aspect ratio with at most (or, to `enlarge`, about) side x side pixels, in whole units."""
        if height * width > self.side**2 or enlarge:
            ratio = width / height
            height = int(self.side / math.sqrt(ratio))
            width = int(height * ratio)
        return _nearest(height, self.unit), _nearest(width, self.unit)


def _nearest(length: float, unit: int) -> int:
    return max(round(length / unit) * unit, unit)
