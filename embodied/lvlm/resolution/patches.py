"""Fuyu's raw patches: the picture as it is, cut into patches, each row of them ended by a newline."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from embodied.lvlm.resolution.base import Layout, Resolution
from embodied.lvlm.resolution.tiles import Size, checked, end_rows, known_filter, learned, positive, resize


class PatchRows(Resolution):
    """Bavishi et al. 2023 (Fuyu-8B); as `FuyuImageProcessor` of transformers.

    A picture that is too large is scaled to fit, a smaller one is left alone; right and below it is padded to whole
    patches. In Fuyu the newline is a word of the language model: its embedding is this strategy's parameter.

    Args:
        width: D of a token.
        patch: pixels of a patch.
        max_height, max_width: pixels, multiples of `patch`.
        padding: grey value of the padding, in [0, 255]; the official processor pads with 1.
        resample: PIL's filter.

    Raises:
        ValueError: bounds that patches do not fill.
    """

    def __init__(
        self,
        width: int,
        patch: int = 30,
        max_height: int = 1080,
        max_width: int = 1920,
        padding: int = 1,
        resample: str = "bilinear",
    ) -> None:
        super().__init__(width)
        positive(self, patch=patch, max_height=max_height, max_width=max_width)
        if max_height % patch or max_width % patch:
            raise ValueError(f"PatchRows: {max_height} x {max_width} pixels are not made of patches of {patch}")
        self.patch, self.bounds, self.padding = patch, (max_height, max_width), padding
        self.resample = known_filter(self, resample)
        self.newline = learned(width)

    def plan(self, height: int, width: int) -> Layout:
        checked(self, height, width)
        shown = self._shown(height, width)
        if min(shown) < 1:
            raise ValueError(f"PatchRows: a picture of {height} x {width} pixels is too thin; crop it")
        padded = tuple(math.ceil(length / self.patch) * self.patch for length in shown)
        return Layout((height, width), ((padded[0], padded[1]),))

    def cut(self, picture: Image.Image, layout: Layout) -> list[Image.Image]:
        shown = self._shown(*layout.size)
        if shown != layout.size:
            picture = resize(picture, shown, self.resample)
        height, width = layout.views[0]
        canvas = Image.new("RGB", (width, height), (self.padding,) * 3)
        canvas.paste(picture, (0, 0))
        return [canvas]

    def count(self, layout: Layout, grids: Sequence[Size]) -> int:
        rows, columns = grids[0]
        return rows * (columns + 1)

    def arrange(self, tokens: Sequence[Tensor], layout: Layout, grids: Sequence[Size]) -> Tensor:
        return end_rows(tokens[0].unflatten(0, grids[0]), self.newline)

    def _shown(self, height: int, width: int) -> Size:
        if height <= self.bounds[0] and width <= self.bounds[1]:
            return height, width
        scale = min(self.bounds[0] / height, self.bounds[1] / width)
        return int(height * scale), int(width * scale)
