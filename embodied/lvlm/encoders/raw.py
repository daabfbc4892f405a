"""No encoder at all: the pixels of a patch are its feature, as in Fuyu (Bavishi et al. 2023).

A linear connector then makes tokens of them and the language model does all the seeing. Pictures keep their size,
padded to whole patches; the newline token at the end of each row of patches is the resolution's.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from embodied.lvlm.encoders.base import ImageEncoder, Preprocess
from embodied.lvlm.encoders.pretrained import HALF


class RawPatches(ImageEncoder):
    """Patches as features: pixels row by row, the three channels of a pixel side by side.

    Args:
        patch: side of a patch, in pixels.

    Raises:
        ValueError: a patch without pixels.
    """

    def __init__(self, patch: int = 30) -> None:
        super().__init__(*HALF)
        if patch < 1:
            raise ValueError(f"RawPatches: patch must be at least 1, got {patch}")
        self.patch, self.dim = patch, 3 * patch * patch

    @property
    def preprocess(self) -> tuple[Preprocess, ...]:
        return (Preprocess(None, *HALF, "bilinear", "native"),)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return -(-height // self.patch), -(-width // self.patch)

    def tokens(self, height: int, width: int) -> int:
        rows, columns = self.grid(height, width)
        return rows * columns

    def encode(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        rows, columns = self.grid(height, width)
        beyond = (1 / 255 - HALF[0][0]) / HALF[1][0]  # Fuyu pads with 1 of 255, before it normalises
        pixels = F.pad(pixels, (0, columns * self.patch - width, 0, rows * self.patch - height), value=beyond)
        patches = pixels.unflatten(3, (columns, self.patch)).unflatten(2, (rows, self.patch))
        return patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
