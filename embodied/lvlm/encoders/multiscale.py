"""S2: one encoder at several scales of the picture, its features side by side (Bunny, VILA-1.5).

Not a resolution strategy, though it is called one: its views end in wider features and not in more tokens, so it wraps
an encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from embodied.lvlm.encoders.base import ImageEncoder, Preprocess


class MultiScale(ImageEncoder):
    """Shi et al. 2024, arXiv 2403.13043; follows `s2wrapper`.

    Pixels come at the largest scale. For each scale they are resized (bicubic), cut into scale x scale tiles, encoded,
    put together again, and pooled by area to the grid of the smallest; the scales' features are then concatenated.

    Args:
        encoder: reads a tile.
        scales: how many tiles each scale has along a side; rising, beginning with 1.

    Raises:
        ValueError: scales out of order, or an encoder that is several in one.
    """

    def __init__(self, encoder: ImageEncoder, scales: Sequence[int] = (1, 2)) -> None:
        super().__init__(encoder.mean.flatten().tolist(), encoder.std.flatten().tolist())
        if not scales or scales[0] != 1 or sorted(set(scales)) != list(scales):
            raise ValueError(f"MultiScale: scales rise and begin with 1, such as [1, 2]; got {list(scales)}")
        self.encoder, self.scales = encoder, tuple(scales)
        self.dim = encoder.dim * len(self.scales)

    @property
    def preprocess(self) -> tuple[Preprocess, ...]:
        """The encoder's own, at the largest scale."""
        inner = self.encoder.preprocess
        if len(inner) != 1 or inner[0].size is None:
            raise ValueError("MultiScale: it wraps one encoder of a fixed size, not several or a native one")
        height, width = inner[0].size
        short = None if inner[0].short is None else inner[0].short * self.scales[-1]
        return (replace(inner[0], size=(height * self.scales[-1], width * self.scales[-1]), short=short),)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return self.encoder.grid(height // self.scales[-1], width // self.scales[-1])

    def tokens(self, height: int, width: int) -> int:
        rows, columns = self.grid(height, width)
        return rows * columns

    def encode(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, H, W) at the largest scale, which divides H and W, to (B, N, dim)."""
        height, width = pixels.shape[2] // self.scales[-1], pixels.shape[3] // self.scales[-1]
        grid = self.encoder.grid(height, width)
        return torch.cat([self._at(scale, pixels, (height, width), grid) for scale in self.scales], dim=-1)

    def _at(self, scale: int, pixels: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        wanted = (size[0] * scale, size[1] * scale)
        if pixels.shape[2:] != wanted:
            pixels = F.interpolate(pixels.float(), wanted, mode="bicubic").to(pixels.dtype)
        tiles = pixels.unflatten(3, (scale, size[1])).unflatten(2, (scale, size[0])).permute(0, 2, 4, 1, 3, 5)
        features = self.encoder.encode(tiles.flatten(0, 2))
        if scale == 1:
            return features
        canvas = features.unflatten(1, grid).unflatten(0, (-1, scale, scale)).permute(0, 5, 1, 3, 2, 4)
        pooled = F.interpolate(canvas.flatten(4, 5).flatten(2, 3).float(), grid, mode="area").to(features.dtype)
        return pooled.flatten(2).transpose(1, 2)

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        return {**node, "encoder": self.encoder.resolved(dict(node["encoder"]))}
