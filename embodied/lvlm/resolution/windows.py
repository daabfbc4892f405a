"""A fixed grid of tiles and an overview: Monkey, Sphinx, Sphinx-X, MM1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from PIL import Image
from torch import Tensor

from embodied.lvlm.resolution.base import Layout
from embodied.lvlm.resolution.tiles import Size, ViewByView, checked, cut_tiles, learned, positive, resize

Place = Literal["squash", "centre", "corner"]


class Windows(ViewByView):
    """The picture on a canvas of rows x columns tiles, whatever its size.

    Monkey (Li et al. 2023, arXiv 2311.06607) reads 448 px windows of an 896 x 896 or 896 x 1344 picture, MM1 (McKinzie
    et al. 2024, arXiv 2403.09611) and Sphinx (Lin et al. 2023, arXiv 2311.07575) a picture twice the encoder's side in
    four parts; all see the whole besides. Sphinx-X (Gao et al. 2024, arXiv 2402.05935) keeps the aspect ratio, and a
    tile that shows nothing but padding becomes one learned token and is not encoded.

    Args:
        width: D of a token.
        rows, columns: tiles.
        side: pixels of a tile.
        place: `squash` the picture onto the canvas, or scale it to fit and put it into the `centre` or the top left
            `corner`.
        skip: whether tiles of padding alone are skipped.
        overview_first: whether the overview comes before the tiles or behind them; null: there is none.
        padding: RGB colour of the canvas, each in [0, 255].
        resample: PIL's filter.

    Raises:
        ValueError: an unknown place, or a colour that is none.
    """

    def __init__(
        self,
        width: int,
        rows: int = 2,
        columns: int = 2,
        side: int = 448,
        place: Place = "squash",
        skip: bool = False,
        overview_first: bool | None = True,
        padding: Sequence[int] = (0, 0, 0),
        resample: str = "bicubic",
    ) -> None:
        super().__init__(width, resample)
        positive(self, rows=rows, columns=columns, side=side)
        if place not in get_args(Place):
            raise ValueError(f"Windows: place is one of {', '.join(get_args(Place))}, got {place!r}")
        if len(padding) != 3 or not all(0 <= part <= 255 for part in padding):
            raise ValueError(f"Windows: padding is three numbers in [0, 255], got {list(padding)}")
        self.tiles, self.side, self.place, self.overview_first = (rows, columns), side, place, overview_first
        self.padding = (int(padding[0]), int(padding[1]), int(padding[2]))
        self.skip = learned(width) if skip else None

    def plan(self, height: int, width: int) -> Layout:
        checked(self, height, width)
        count = sum(self._shown((height, width)))
        overview = None if self.overview_first is None else 0 if self.overview_first else count
        views = ((self.side, self.side),) * (count + (overview is not None))
        return Layout((height, width), views, self.tiles, overview)

    def cut(self, picture: Image.Image, layout: Layout) -> list[Image.Image]:
        top, left, height, width = self._box(layout.size)
        rows, columns = self.tiles
        canvas = Image.new("RGB", (columns * self.side, rows * self.side), self.padding)
        canvas.paste(resize(picture, (height, width), self.resample), (left, top))
        shown = self._shown(layout.size)
        views = [tile for tile, shows in zip(cut_tiles(canvas, rows, columns), shown, strict=True) if shows]
        if layout.overview is not None:
            whole = picture if self.place == "squash" else canvas
            views.insert(layout.overview, resize(whole, (self.side, self.side), self.resample))
        return views

    def runs(self, layout: Layout, grids: Sequence[Size]) -> list[int]:
        lengths = super().runs(layout, grids)
        overview = [] if layout.overview is None else [lengths.pop(layout.overview)]
        views = iter(lengths)
        tiles = [next(views) if shows else 1 for shows in self._shown(layout.size)]
        return overview + tiles if self.overview_first else tiles + overview

    def arrange(self, tokens: Sequence[Tensor], layout: Layout, grids: Sequence[Size]) -> Tensor:
        parts = list(tokens)
        overview: list[Tensor | None] = [] if layout.overview is None else [parts.pop(layout.overview)]
        views = iter(parts)
        skipped = None if self.skip is None else self.skip.unsqueeze(0).to(tokens[0])
        tiles: list[Tensor | None] = [next(views) if shows else skipped for shows in self._shown(layout.size)]
        ordered = overview + tiles if self.overview_first else tiles + overview
        return torch.cat([part for part in ordered if part is not None])

    def _box(self, size: Size) -> tuple[int, int, int, int]:
        """Top, left, height and width of the picture on the canvas, pixels."""
        rows, columns = self.tiles
        full = (rows * self.side, columns * self.side)
        if self.place == "squash":
            return 0, 0, *full
        scale = min(full[0] / size[0], full[1] / size[1])
        height, width = (max(1, min(round(length * scale), most)) for length, most in zip(size, full, strict=True))
        if self.place == "corner":
            return 0, 0, height, width
        return (full[0] - height) // 2, (full[1] - width) // 2, height, width

    def _shown(self, size: Size) -> list[bool]:
        """Which tiles are encoded, row by row."""
        rows, columns = self.tiles
        if self.skip is None:
            return [True] * (rows * columns)
        top, left, height, width = self._box(size)

        def meets(start: int, length: int, tile: int) -> bool:
            return start < (tile + 1) * self.side and start + length > tile * self.side

        return [
            meets(top, height, row) and meets(left, width, column) for row in range(rows) for column in range(columns)
        ]
