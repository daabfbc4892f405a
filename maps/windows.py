"""A window of a grid map around the agent, turned so that it looks up, as tokens: what a policy reads of a big map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maps.base import MapTokens
from maps.geometry import Grid, to_allocentric


class EgocentricWindow(nn.Module):
    """Patches of the square around the agent, each a token with a learned place.

    The window's first row is farthest ahead, its first column farthest to the left. A window's cell holds what the
    grid's cell at its centre holds, so reading costs the window's size whatever the map's, and gradients reach the
    cells that were read.

    Args:
        grid: the map's.
        channels: numbers per cell.
        width: size D of a token.
        size: cells per side.
        patch: cells per side of one token.

    Raises:
        ValueError: patches that don't fill the window.
    """

    def __init__(self, grid: Grid, channels: int, width: int, size: int, patch: int) -> None:
        super().__init__()
        if size < 1 or patch < 1 or size % patch:
            raise ValueError(f"a window of {size} cells should be a whole number of patches of {patch}")
        self.grid, self.size, self.patch = grid, size, patch
        hidden = max(32, width // 2)
        self.stem = nn.Sequential(nn.Conv2d(channels, hidden, 3, padding=1), nn.GELU())
        self.merge = nn.Conv2d(hidden, width, patch, stride=patch)
        self.places = nn.Parameter(torch.randn((size // patch) ** 2, width) * 0.02)
        middle = (size - 1) / 2
        ahead = (middle - torch.arange(size)) * grid.resolution
        away = torch.stack([ahead.unsqueeze(1).expand(-1, size), ahead.expand(size, -1)], dim=-1).flatten(0, 1)
        self.register_buffer("away", away, persistent=False)
        self.away: Tensor

    def cells_of(self, agents: Tensor) -> tuple[Tensor, Tensor]:
        """Cells (B, size * size) under the windows of agents (B, 3), and which are on the grid."""
        return self.grid.index(to_allocentric(self.away.expand(len(agents), -1, -1), agents))

    def forward(self, values: Tensor, known: Tensor) -> MapTokens:
        """Tokens (B, (size / patch)^2, D) of cells' values (B, size * size, C); `known` (B, size * size) are real."""
        values = torch.where(known.unsqueeze(-1), values, torch.zeros_like(values))
        picture = values.transpose(1, 2).unflatten(2, (self.size, self.size))
        tokens = self.merge(self.stem(picture)).flatten(2).transpose(1, 2) + self.places
        squares = known.unflatten(1, (self.size, self.size)).unfold(1, self.patch, self.patch)
        return MapTokens(tokens, squares.unfold(2, self.patch, self.patch).flatten(3).any(-1).flatten(1))
