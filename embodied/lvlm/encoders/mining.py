"""Patch info mining: tokens of a small picture look up details in a large one, each in its own region.

Mini-Gemini (Li et al. 2024, arXiv 2403.18814; the shapes follow its official code): a CLIP sees 336 pixels, a ConvNeXt
sees 768 with a grid several times finer. Each CLIP token attends to the finer features that lie where it lies, and what
it finds is added to it, so the number of tokens stays that of the small picture.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from embodied.lvlm.encoders.base import ImageEncoder
from embodied.lvlm.encoders.ensemble import Ensemble, Grid, as_map


class DualResolution(Ensemble):
    """Low-resolution features that mine high-resolution ones.

    Args:
        low: whose features are kept and ask.
        high: whose features are asked; its grid is a multiple of the other's.

    Raises:
        ValueError: when used: grids that do not fit.
    """

    def __init__(self, low: ImageEncoder, high: ImageEncoder) -> None:
        super().__init__([low, high])
        self.dim = low.dim
        self.query = nn.Sequential(nn.LayerNorm(low.dim), nn.Linear(low.dim, low.dim))
        self.key = nn.Sequential(nn.LayerNorm(high.dim), nn.Linear(high.dim, low.dim))
        self.value = nn.Sequential(nn.LayerNorm(high.dim), nn.Linear(high.dim, low.dim))

    def fuse(self, features: list[Tensor], grids: list[Grid]) -> Tensor:
        low, high = features
        (rows, columns), finer = grids
        side = finer[0] // rows
        if finer != (rows * side, columns * side) or low.shape[1] != rows * columns:
            raise ValueError(f"DualResolution: a grid of {finer} is no multiple of {rows} x {columns}")
        regions = as_map(high, finer).unflatten(3, (columns, side)).unflatten(2, (rows, side))
        regions = regions.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)  # (B, N, side * side, D_high)
        asked = self.query(low).unsqueeze(2) @ self.key(regions).transpose(-1, -2) * self.dim**-0.5
        return low + (asked.softmax(dim=-1) @ self.value(regions)).squeeze(2)

    def grid(self, height: int, width: int) -> Grid:
        return self.encoders[0].grid(height, width)

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        low, high = self.encoders
        return {**node, "low": low.resolved(dict(node["low"])), "high": high.resolved(dict(node["high"]))}
