"""A convolutional stem: the cheapest way to a few image tokens, trained from scratch.

Early convolutions in front of a transformer make it train faster and more stably than patches do (Xiao et al. 2021,
arXiv 2106.14881). Each stage halves the picture; 96 px and four stages leave 6 x 6 = 36 tokens. With the default
widths 0.2 M parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from embodied.lvlm.encoders.base import ImageEncoder, Preprocess

HALF = (0.5, 0.5, 0.5)


class ConvolutionalStem(ImageEncoder):
    """Strided 3x3 convolutions with group normalisation, then a grid position embedding.

    Args:
        widths: channels after each stage; a stage halves height and width.
        patch: kernel and stride of a first patch-wise convolution with `widths[0]` channels, instead of a 3x3 stage of
            stride 2. 4 saves most of the time that full resolution costs.
        blocks: residual 3x3 convolutions after the last stage, which let a cell see more around it.
        size: side of the square that pictures are brought to before they are read; None: only images that come as
            they are (robots' cameras) are.

    Raises:
        ValueError: no widths, or one that 8 groups do not divide; a negative number of blocks.
    """

    def __init__(
        self, widths: Sequence[int] = (32, 64, 96, 128), patch: int = 2, blocks: int = 0, size: int | None = None
    ) -> None:
        super().__init__(HALF, HALF)
        if not widths or any(width % 8 for width in widths):
            raise ValueError(f"ConvolutionalStem: widths are multiples of 8, at least one, got {list(widths)}")
        if blocks < 0:
            raise ValueError(f"ConvolutionalStem: blocks must not be negative, got {blocks}")
        self.dim, self.size = widths[-1], size
        self.patch, self.halvings = patch, len(widths) - 1
        first = nn.Conv2d(3, widths[0], 3, 2, 1) if patch == 2 else nn.Conv2d(3, widths[0], patch, patch)
        layers: list[nn.Module] = [first]
        for n_in, n_out in pairwise(widths):
            layers += [nn.GroupNorm(8, n_in), nn.SiLU(), nn.Conv2d(n_in, n_out, 3, 2, 1)]
        layers += [_Residual(self.dim) for _ in range(blocks)]
        self.stages = nn.Sequential(*layers, nn.GroupNorm(8, self.dim), nn.SiLU())
        self.position = nn.Linear(4, self.dim)

    @property
    def preprocess(self) -> tuple[Preprocess, ...]:
        if self.size is None:
            return super().preprocess
        return (Preprocess((self.size, self.size), HALF, HALF, "bicubic", "squash"),)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return self._cells(height), self._cells(width)

    def _cells(self, side: int) -> int:
        cells = -(-side // 2) if self.patch == 2 else side // self.patch
        for _ in range(self.halvings):
            cells = -(-cells // 2)
        return cells

    def encode(self, pixels: Tensor) -> Tensor:
        grid = self.stages(pixels)
        features = grid.flatten(2).transpose(1, 2)
        return features + self.position(
            grid_coordinates(grid.shape[-2], grid.shape[-1], grid.device).to(features.dtype)
        )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, 1, 1))

    def forward(self, grid: Tensor) -> Tensor:
        return grid + self.net(grid)


def grid_coordinates(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """(height * width, 4): x, y in [-1, 1] and their cell-centred complements, row by row."""
    y = (torch.arange(height, device=device) + 0.5) / height * 2 - 1
    x = (torch.arange(width, device=device) + 0.5) / width * 2 - 1
    yx = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flatten(0, 1)
    return torch.cat([yx.flip(-1), 1 - yx.flip(-1).abs()], -1)
