"""AnyRes: the canvas of tiles that loses least of the picture, behind an overview (LLaVA-NeXT, LLaVA-OneVision)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from embodied.lvlm.resolution.base import Layout, Resolution
from embodied.lvlm.resolution.tiles import (
    Size,
    checked,
    cut_tiles,
    end_rows,
    known_filter,
    learned,
    mosaic,
    positive,
    resize,
)


class AnyRes(Resolution):
    """LLaVA-NeXT's strategy (Liu et al. 2024), and LLaVA-OneVision's with `max_tiles` (Li et al. 2024, 2408.03326).

    The picture is scaled into the best canvas, padded with black in equal parts, and cut into tiles. Their tokens are
    laid out as the picture, padding is cut off again, a learned newline ends each row, and the overview comes before.

    Args:
        width: D of a token.
        side: pixels of a tile.
        pinpoints: (height, width) of the canvases to choose from, in pixels; multiples of `side`.
        unpad: whether tokens of padding are cut off.
        newline: whether rows end with a learned token.
        max_tiles: canvases with more tokens than this many tiles have are shrunk to as many by bilinear interpolation
            (`anyres_max_9` is 9); null never shrinks.
        resample: PIL's filter.
        film_scale: of films read as a whole, each frame's tokens are shrunk by this factor, as canvases are, and one
            newline ends the film (LLaVA-OneVision: 2); null leaves them alone.

    Raises:
        ValueError: no pinpoints, or one that tiles do not fill; a size that is not positive.
    """

    def __init__(
        self,
        width: int,
        side: int,
        pinpoints: Sequence[Sequence[int]],
        unpad: bool = True,
        newline: bool = True,
        max_tiles: int | None = None,
        resample: str = "bicubic",
        film_scale: int | None = None,
    ) -> None:
        super().__init__(width)
        positive(self, side=side, max_tiles=max_tiles or int(max_tiles is None))
        positive(self, film_scale=film_scale or int(film_scale is None))
        self.pinpoints = [(int(height), int(width)) for height, width in pinpoints]
        if not self.pinpoints:
            raise ValueError("AnyRes: pinpoints is empty; give it canvases such as [[336, 672], [672, 336]]")
        for canvas in self.pinpoints:
            if canvas[0] % side or canvas[1] % side or min(canvas) < side:
                raise ValueError(f"AnyRes: pinpoint {list(canvas)} is not made of tiles of {side} pixels")
        self.side, self.unpad, self.max_tiles, self.film_scale = side, unpad, max_tiles, film_scale
        self.resample = known_filter(self, resample)
        self.newline = learned(width) if newline else None

    def plan(self, height: int, width: int) -> Layout:
        checked(self, height, width)
        canvas = best_canvas((height, width), self.pinpoints)
        tiles = (canvas[0] // self.side, canvas[1] // self.side)
        return Layout((height, width), ((self.side, self.side),) * (1 + tiles[0] * tiles[1]), tiles)

    def cut(self, picture: Image.Image, layout: Layout) -> list[Image.Image]:
        rows, columns = layout.tiles
        canvas = Image.new("RGB", (columns * self.side, rows * self.side))
        height, width = _inside(layout.size, (canvas.height, canvas.width))
        left, top = (canvas.width - width) // 2, (canvas.height - height) // 2
        canvas.paste(resize(picture, (height, width), self.resample), (left, top))
        return [resize(picture, (self.side, self.side), self.resample), *cut_tiles(canvas, rows, columns)]

    def count(self, layout: Layout, grids: Sequence[Size]) -> int:
        (rows, columns), _, _ = self._canvas(layout, grids)
        return grids[0][0] * grids[0][1] + rows * (columns + (self.newline is not None))

    def arrange(self, tokens: Sequence[Tensor], layout: Layout, grids: Sequence[Size]) -> Tensor:
        (rows, columns), down, right = self._canvas(layout, grids)
        canvas = mosaic(tokens[1:], layout.tiles, grids[1])
        canvas = canvas[down : canvas.shape[0] - down, right : canvas.shape[1] - right]
        if canvas.shape[:2] != (rows, columns):
            shrunk = F.interpolate(canvas.permute(2, 0, 1).unsqueeze(0), (rows, columns), mode="bilinear")
            canvas = shrunk[0].permute(1, 2, 0)
        return torch.cat([tokens[0], end_rows(canvas, self.newline)])

    def film_grid(self, grid: tuple[int, int, int]) -> tuple[int, int, int]:
        if self.film_scale is None:
            return grid
        rows, columns = (-(-side // self.film_scale) for side in grid[1:])
        return (grid[0], rows, columns) if self.newline is None else (1, 1, grid[0] * rows * columns + 1)

    def arrange_film(self, tokens: Tensor, grid: tuple[int, int, int]) -> Tensor:
        if self.film_scale is None:
            return tokens
        times, rows, columns = grid
        maps = tokens.unflatten(1, grid).flatten(0, 1).permute(0, 3, 1, 2)
        size = (-(-rows // self.film_scale), -(-columns // self.film_scale))
        shrunk = F.interpolate(maps, size, mode="bilinear").flatten(2).transpose(1, 2)
        film = shrunk.unflatten(0, (-1, times)).flatten(1, 2)
        return film if self.newline is None else torch.cat([film, self.newline.expand(len(film), 1, -1)], dim=1)

    def _canvas(self, layout: Layout, grids: Sequence[Size]) -> tuple[Size, int, int]:
        """Rows and columns of tokens that are left, and how many are cut off above (and below) and left (and right)."""
        (row, column), (rows, columns) = grids[1], layout.tiles
        full = (row * rows, column * columns)
        down, right = _padding(layout.size, full) if self.unpad else (0, 0)
        height, width = full[0] - 2 * down, full[1] - 2 * right
        if self.max_tiles is not None:
            ratio = math.sqrt(height * width / (self.max_tiles * row * column))
            if ratio > 1.1:  # the official code leaves canvases alone that are hardly too large
                height, width = max(1, int(height // ratio)), max(1, int(width // ratio))
        return (height, width), down, right


def best_canvas(size: Size, canvases: Sequence[Size]) -> Size:
    """The canvas that keeps most of the picture's pixels and, of equals, wastes fewest of its own."""
    height, width = size

    def kept(canvas: Size) -> tuple[int, int]:
        scale = min(canvas[1] / width, canvas[0] / height)
        effective = min(int(width * scale) * int(height * scale), height * width)
        return effective, effective - canvas[0] * canvas[1]

    return max(canvases, key=kept)


def _inside(size: Size, canvas: Size) -> Size:
    """The largest size of the same aspect ratio that fits into a canvas."""
    across, down = canvas[1] / size[1], canvas[0] / size[0]
    if across < down:
        return min(math.ceil(size[0] * across), canvas[0]), canvas[1]
    return canvas[0], min(math.ceil(size[1] * down), canvas[1])


def _padding(size: Size, full: Size) -> tuple[int, int]:
    """Rows above and columns left of a canvas of tokens that show padding alone (LLaVA's `unpad_image`)."""
    if size[1] / size[0] > full[1] / full[0]:
        return (full[0] - int(round(size[0] * (full[1] / size[1]), 7))) // 2, 0
    return 0, (full[1] - int(round(size[1] * (full[0] / size[0]), 7))) // 2
