"""What the strategies share: resizing, cutting into tiles, and laying the tokens of tiles out as the picture was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from embodied.lvlm.encoders.base import RESAMPLE
from embodied.lvlm.resolution.base import Layout, Resolution

Size = tuple[int, int]
"""(height, width), pixels."""


class ViewByView(Resolution):
    """Strategies whose sequence is the tokens of one view after those of the other, in the order they are encoded.

    Args:
        width: D of a token.
        resample: PIL's filter, by name.
    """

    def __init__(self, width: int, resample: str = "bicubic") -> None:
        super().__init__(width)
        self.resample = known_filter(self, resample)

    def count(self, layout: Layout, grids: Sequence[Size]) -> int:
        return sum(self.runs(layout, grids))

    def runs(self, layout: Layout, grids: Sequence[Size]) -> list[int]:
        return [rows * columns for rows, columns in grids]

    def arrange(self, tokens: Sequence[Tensor], layout: Layout, grids: Sequence[Size]) -> Tensor:
        return torch.cat(list(tokens))


def checked(owner: object, height: int, width: int) -> None:
    """Refuse a picture without pixels.

    Raises:
        ValueError: a side is shorter than one pixel.
    """
    if height < 1 or width < 1:
        raise ValueError(
            f"{type(owner).__name__}: a picture of {height} x {width} pixels (height x width) has no views"
        )


def positive(owner: object, **numbers: Any) -> None:
    """Refuse sizes and counts below one.

    Raises:
        ValueError: naming the first that is.
    """
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{type(owner).__name__}: {name} must be at least 1, got {number}")


def known_filter(owner: object, name: str) -> str:
    """`name` if PIL has such a filter.

    Raises:
        ValueError: it has not.
    """
    if name not in RESAMPLE:
        raise ValueError(f"{type(owner).__name__}: resample is one of {', '.join(RESAMPLE)}, got {name!r}")
    return name


def resize(picture: Image.Image, size: Size, resample: str) -> Image.Image:
    """The picture at `size`, whatever its aspect ratio."""
    height, width = size
    return picture.resize((width, height), RESAMPLE[resample])


def cut_tiles(picture: Image.Image, rows: int, columns: int) -> list[Image.Image]:
    """Tiles of equal size, row by row, from a picture whose sides `rows` and `columns` divide."""
    height, width = picture.height // rows, picture.width // columns
    return [
        picture.crop((column * width, row * height, (column + 1) * width, (row + 1) * height))
        for row in range(rows)
        for column in range(columns)
    ]


def mosaic(tokens: Sequence[Tensor], tiles: Size, grid: Size) -> Tensor:
    """Tokens of tiles, row by row, each (rows x columns, D), put together as the tiles lie: (R, C, D)."""
    stacked = torch.stack(list(tokens)).unflatten(0, tiles).unflatten(2, grid)
    return stacked.transpose(1, 2).flatten(2, 3).flatten(0, 1)


def end_rows(canvas: Tensor, newline: Tensor | None) -> Tensor:
    """A canvas (R, C, D) row by row, (R x (C + 1), D), with `newline` (D,) behind each row; without one (R x C, D)."""
    if newline is not None:
        canvas = torch.cat([canvas, newline.to(canvas).expand(len(canvas), 1, -1)], dim=1)
    return canvas.flatten(0, 1)


def learned(width: int, *shape: int) -> nn.Parameter:
    """Tokens of a strategy's own, (*shape, D), as LLaVA-NeXT's newline begins."""
    return nn.Parameter(torch.randn(*shape, width) * width**-0.5)
