"""Which cells an agent looks over: those in the camera's cone, up to what ends its sight in each column."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from maps.geometry import Grid, focal_length


@dataclass(frozen=True)
class Sight:
    """The cells around B views.

    Attributes:
        cells: (B, K) indices, 0 where `seen` is False.
        seen: (B, K), bool.
        bearing: (B, K) radians from the optical axis in the plan, left is positive.
        distance: (B, K) metres.
    """

    cells: Tensor
    seen: Tensor
    bearing: Tensor
    distance: Tensor


@lru_cache(maxsize=16)
def _disc(radius: int, device: torch.device) -> Tensor:
    """(K, 2) steps to the cells of a disc."""
    side = torch.arange(-radius, radius + 1, device=device)
    steps = torch.cartesian_prod(side, side)
    return steps[(steps**2).sum(1) <= radius**2]


def look(grid: Grid, agents: Tensor, reach: Tensor, field_of_view: float, far: float) -> Sight:
    """Cells within `far` metres whose centre lies in the cone and no deeper than the column's reach.

    Args:
        grid: of the map.
        agents: (B, 3) x, y in the grid's frame and heading.
        reach: (B, W) by image column, how deep (along the axis, in metres) it sees.
        field_of_view: in degrees.
        far: metres.
    """
    width = reach.shape[1]
    at = torch.floor(agents[:, :2] / grid.resolution + grid.size / 2).long()
    cells = at.unsqueeze(1) + _disc(math.ceil(far / grid.resolution), agents.device)
    inside = ((cells >= 0) & (cells < grid.size)).all(-1)
    x, y = ((cells + 0.5 - grid.size / 2) * grid.resolution - agents[:, None, :2]).unbind(-1)
    cosine, sine = agents[:, 2:].cos(), agents[:, 2:].sin()
    ahead, left = x * cosine + y * sine, y * cosine - x * sine
    column = (width - 1) / 2 - left / ahead.clamp(min=1e-6) * focal_length(width, field_of_view)
    column = column.clamp(-1, width).round().long()
    deepest = reach.gather(1, column.clamp(0, width - 1))
    distance = torch.hypot(ahead, left)
    seen = inside & (ahead > 0) & (column >= 0) & (column < width) & (ahead <= deepest) & (distance <= far)
    index = torch.where(seen, cells[..., 0] * grid.size + cells[..., 1], 0)
    return Sight(index, seen, torch.atan2(left, ahead), distance)
