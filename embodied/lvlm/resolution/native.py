"""Native dynamic resolution: one view of about the picture's own size and shape (Qwen2-VL)."""

from __future__ import annotations

import math

from PIL import Image

from embodied.lvlm.resolution.base import Layout
from embodied.lvlm.resolution.tiles import Size, ViewByView, checked, positive, resize

THINNEST = 200
"""Longer side over shorter side from which on the official code refuses a picture."""


class Native(ViewByView):
    """Wang et al. 2024, arXiv 2409.12191; sizes as `smart_resize` of Qwen2-VL.

    Both sides become the nearest multiple of `unit`; pictures with too many or too few pixels are scaled to the bound.

    Args:
        width: D of a token.
        unit: pixels of the encoder's patch, times what its tokens are merged by.
        min_pixels, max_pixels: bounds of height x width.
        resample: PIL's filter.

    Raises:
        ValueError: bounds out of order.
    """

    def __init__(
        self,
        width: int,
        unit: int = 28,
        min_pixels: int = 56 * 56,
        max_pixels: int = 28 * 28 * 1280,
        resample: str = "bicubic",
    ) -> None:
        super().__init__(width, resample)
        positive(self, unit=unit, min_pixels=min_pixels)
        if max_pixels < max(min_pixels, unit**2):
            raise ValueError(
                f"Native: max_pixels {max_pixels} is less than {max(min_pixels, unit**2)}, the least there is"
            )
        self.unit, self.min_pixels, self.max_pixels = unit, min_pixels, max_pixels

    def plan(self, height: int, width: int) -> Layout:
        checked(self, height, width)
        if max(height, width) > THINNEST * min(height, width):
            raise ValueError(
                f"Native: a picture of {height} x {width} pixels (height x width) is more than {THINNEST} times longer "
                "than wide; crop it"
            )
        return Layout((height, width), (self._size(height, width),))

    def cut(self, picture: Image.Image, layout: Layout) -> list[Image.Image]:
        return [resize(picture, layout.views[0], self.resample)]

    def _size(self, height: int, width: int) -> Size:
        unit = self.unit
        near = (round(height / unit) * unit, round(width / unit) * unit)
        if near[0] * near[1] > self.max_pixels:
            shrink = math.sqrt(height * width / self.max_pixels)
            return max(unit, math.floor(height / shrink / unit) * unit), max(
                unit, math.floor(width / shrink / unit) * unit
            )
        if near[0] * near[1] < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            return math.ceil(height * grow / unit) * unit, math.ceil(width * grow / unit) * unit
        return near
