"""One view: the picture as it is, which the encoder's preprocessing makes the size that it reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from embodied.lvlm.resolution.base import Layout, Resolution
from embodied.lvlm.resolution.tiles import Size, checked, learned


class SingleView(Resolution):
    """A fixed resolution (BLIP-2, LLaVA, LLaVA-1.5): squashed, cropped or padded by the encoder's preprocessing.

    Args:
        width: D of a token.
        newline: whether a learned token ends the picture (LLaVA-OneVision, for several pictures in one sample).
    """

    def __init__(self, width: int, newline: bool = False) -> None:
        super().__init__(width)
        self.newline = learned(width) if newline else None

    def plan(self, height: int, width: int) -> Layout:
        checked(self, height, width)
        return Layout((height, width), ((height, width),))

    def cut(self, picture: Image.Image, layout: Layout) -> list[Image.Image]:
        return [picture]

    def count(self, layout: Layout, grids: Sequence[Size]) -> int:
        rows, columns = grids[0]
        return rows * columns + (self.newline is not None)

    def arrange(self, tokens: Sequence[Tensor], layout: Layout, grids: Sequence[Size]) -> Tensor:
        if self.newline is None:
            return tokens[0]
        return torch.cat([tokens[0], self.newline.unsqueeze(0).to(tokens[0])])
