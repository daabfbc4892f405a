"""The HD transform: as many tiles as allowed across the longer side, padding, newlines, overview before or behind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
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

Order = Literal["sub_glb", "glb_sub"]


class HDTransform(Resolution):
    """InternLM-XComposer2-4KHD's (Dong et al. 2024, arXiv 2404.06512), taken over by XComposer-2.5 and Phi-3-Vision.

    The picture is scaled until another column of tiles would make too many, and padded with white to whole tiles.
    Tokens of the tiles are laid out as the picture; a learned newline ends each row of it and of the overview, and a
    learned separator stands between the two.

    Args:
        width: D of a token.
        side: pixels of a tile.
        max_tiles: how many tiles there may be, without the overview (`hd_num`, `num_crops`).
        order: tiles first (`sub_glb`, Phi-3-Vision) or the overview first (`glb_sub`, 4KHD).
        resample: PIL's filter for the tiles. The overview is made from them as officially, bicubic without
            antialiasing, but rounded to whole pixel values (half a grey level at most).

    Raises:
        ValueError: an unknown order.
    """

    def __init__(
        self, width: int, side: int = 336, max_tiles: int = 16, order: Order = "sub_glb", resample: str = "bilinear"
    ) -> None:
        super().__init__(width)
        positive(self, side=side, max_tiles=max_tiles)
        if order not in get_args(Order):
            raise ValueError(f"HDTransform: order is one of {', '.join(get_args(Order))}, got {order!r}")
        self.side, self.max_tiles, self.order = side, max_tiles, order
        self.resample = known_filter(self, resample)
        self.newline, self.separator = learned(width), learned(width)

    def plan(self, height: int, width: int) -> Layout:
        checked(self, height, width)
        short, long = self._scaled(height, width)
        tiles = (math.ceil(short / self.side), long // self.side)
        tiles = tiles if width >= height else (tiles[1], tiles[0])
        return Layout((height, width), ((self.side, self.side),) * (1 + tiles[0] * tiles[1]), tiles)

    def cut(self, picture: Image.Image, layout: Layout) -> list[Image.Image]:
        height, width = layout.size
        tall = width < height
        if tall:  # not resized as it lies: PIL rounds between its two passes, so their order shows
            picture = picture.transpose(Image.Transpose.TRANSPOSE)
        short, long = self._scaled(height, width)
        full = math.ceil(short / self.side) * self.side
        canvas = Image.new("RGB", (long, full), (255, 255, 255))
        canvas.paste(resize(picture, (short, long), self.resample), (0, (full - short) // 2))
        if tall:
            canvas = canvas.transpose(Image.Transpose.TRANSPOSE)
        return [self._overview(canvas), *cut_tiles(canvas, *layout.tiles)]

    def count(self, layout: Layout, grids: Sequence[Size]) -> int:
        (row, column), (rows, columns), overview = grids[1], layout.tiles, grids[0]
        return rows * row * (columns * column + 1) + 1 + overview[0] * (overview[1] + 1)

    def arrange(self, tokens: Sequence[Tensor], layout: Layout, grids: Sequence[Size]) -> Tensor:
        tiles = end_rows(mosaic(tokens[1:], layout.tiles, grids[1]), self.newline)
        overview = end_rows(tokens[0].unflatten(0, grids[0]), self.newline)
        first, last = (tiles, overview) if self.order == "sub_glb" else (overview, tiles)
        return torch.cat([first, self.separator.unsqueeze(0).to(first), last])

    def _scaled(self, height: int, width: int) -> Size:
        """Pixels of the shorter and of the longer side after scaling; the longer one is whole tiles."""
        ratio = max(height, width) / min(height, width)
        scale = 1
        while (scale + 1) * math.ceil((scale + 1) / ratio) <= self.max_tiles:
            scale += 1
        long = scale * self.side
        short = int(long / ratio)
        if short < 1:
            raise ValueError(f"HDTransform: a picture of {height} x {width} pixels is too thin; crop it")
        return short, long

    def _overview(self, canvas: Image.Image) -> Image.Image:
        pixels = torch.from_numpy(np.array(canvas, np.float32)).permute(2, 0, 1).unsqueeze(0)
        small = F.interpolate(pixels, (self.side, self.side), mode="bicubic", align_corners=False)[0]
        return Image.fromarray(small.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy())
