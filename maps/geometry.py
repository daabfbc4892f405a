"""Where pixels lie in the world, which cell of a grid a place is in, and reductions over whatever shares a cell.

Frames, all right-handed and in metres: the **world** has z up; a heading is an angle about z, counter-clockwise, and
heading 0 looks along +x. (An episode's own frame, where the start is the origin and looks along +x, is a world like any
other.) A **camera** has x to the right, y down and z ahead, as OpenCV's; a pose of a robot's base (x ahead, y left, z
up) becomes a camera's by `pose @ OPTICAL`. An **egocentric** place is (ahead, left) in the plan, seen from the agent.

Pixel (row r, column c) is seen through its centre: with focal length f = W / 2 / tan(field of view / 2) in pixels, the
point at depth d along the axis is d * ((c - (W - 1) / 2) / f, (r - (H - 1) / 2) / f, 1) in the camera's frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

OPTICAL = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""A camera's axes in a robot's base frame, of a camera that looks ahead."""


def camera_pose(x: Tensor, y: Tensor, z: Tensor, heading: Tensor, pitch: Tensor | None = None) -> Tensor:
    """Camera-to-world matrices (..., 4, 4) from positions, headings and pitches (up is positive), each (...)."""
    pitch = torch.zeros_like(heading) if pitch is None else pitch
    ch, sh, cp, sp = heading.cos(), heading.sin(), pitch.cos(), pitch.sin()
    zero, one = torch.zeros_like(ch), torch.ones_like(ch)
    rows = [sh, ch * sp, ch * cp, x, -ch, sh * sp, sh * cp, y, zero, -cp, sp, z, zero, zero, zero, one]
    return torch.stack(rows, dim=-1).unflatten(-1, (4, 4))


def heading_of(pose: Tensor) -> Tensor:
    """Headings (...) of camera-to-world matrices (..., 4, 4), whatever their pitch: from where their right is."""
    return torch.atan2(pose[..., 0, 0], -pose[..., 1, 0])


def focal_length(width: int, field_of_view: float) -> float:
    """Focal length in pixels of an image of so many columns, `field_of_view` degrees across."""
    return width / 2 / math.tan(math.radians(field_of_view) / 2)


def rays(height: int, width: int, field_of_view: float, device: torch.device | None = None) -> Tensor:
    """(H, W, 3): each pixel's point at depth 1, in the camera's frame."""
    focal = focal_length(width, field_of_view)
    right = (torch.arange(width, device=device) - (width - 1) / 2) / focal
    down = (torch.arange(height, device=device) - (height - 1) / 2) / focal
    ahead = torch.ones(height, width, device=device)
    return torch.stack([right.expand(height, -1), down.unsqueeze(1).expand(-1, width), ahead], dim=-1)


def unproject(depth: Tensor, pose: Tensor, field_of_view: float) -> Tensor:
    """World points (..., H, W, 3) of depth images (..., H, W) seen from poses (..., 4, 4)."""
    points = rays(depth.shape[-2], depth.shape[-1], field_of_view, depth.device) * depth.unsqueeze(-1)
    turned = torch.einsum("...hwj,...ij->...hwi", points, pose[..., :3, :3])
    return turned + pose[..., None, None, :3, 3]


def to_egocentric(places: Tensor, agent: Tensor) -> Tensor:
    """Places (..., N, 2) of the plan as (ahead, left) of agents (..., 3): x, y, heading."""
    away = places - agent[..., None, :2]
    cosine, sine = agent[..., None, 2].cos(), agent[..., None, 2].sin()
    x, y = away.unbind(-1)
    return torch.stack([x * cosine + y * sine, y * cosine - x * sine], dim=-1)


def to_allocentric(places: Tensor, agent: Tensor) -> Tensor:
    """Inverse of `to_egocentric`."""
    cosine, sine = agent[..., None, 2].cos(), agent[..., None, 2].sin()
    ahead, left = places.unbind(-1)
    turned = torch.stack([ahead * cosine - left * sine, ahead * sine + left * cosine], dim=-1)
    return turned + agent[..., None, :2]


def bilinear(features: Tensor, rows: Tensor, columns: Tensor, height: int, width: int) -> Tensor:
    """What an upsampled feature image holds at some pixels, without upsampling the others.

    Equal to `interpolate(features, (height, width), mode="bilinear", align_corners=True)` at these pixels.

    Args:
        features: (I, F, h, w), of I images.
        rows, columns: pixels of the (height, width) image, (I, N) each.

    Returns:
        (I, N, F).
    """
    scale = torch.tensor([max(width - 1, 1), max(height - 1, 1)], device=features.device, dtype=features.dtype)
    spots = torch.stack([columns, rows], dim=-1).to(features.dtype) / scale * 2 - 1
    found = torch.nn.functional.grid_sample(features, spots.unsqueeze(1), align_corners=True, padding_mode="border")
    return found.squeeze(2).transpose(1, 2)


@dataclass(frozen=True)
class Grid:
    """A square grid of the plan, centred on (0, 0). Cell (i, j), i along x and j along y, has index i * size + j.

    Attributes:
        size: cells per side.
        resolution: metres per cell.

    Raises:
        ValueError: a grid without cells.
    """

    size: int
    resolution: float

    def __post_init__(self) -> None:
        if self.size < 1 or self.resolution <= 0:
            raise ValueError(
                f"a map's grid has at least one cell of some size, not {self.size} of {self.resolution} metres"
            )

    @property
    def cells(self) -> int:
        return self.size * self.size

    def index(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Cell indices (...) of places (..., 2) in metres, and which of them are on the grid; 0 where off it."""
        at = torch.floor(places / self.resolution + self.size / 2)
        inside = ((at >= 0) & (at < self.size)).all(-1)
        at = torch.where(inside.unsqueeze(-1), at, torch.zeros_like(at)).long()
        return at[..., 0] * self.size + at[..., 1], inside

    def centres(self, index: Tensor) -> Tensor:
        """Centres (..., 2) in metres of cells (...)."""
        at = torch.stack([index // self.size, index % self.size], dim=-1)
        return (at + 0.5 - self.size / 2) * self.resolution


def highest(values: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Of all entries (N,) that share an index, the one with the largest value; of equals the first.

    Returns:
        The distinct indices (G,), rising, and the winners' places in `values`, (G,). Costs O(N log N), whatever the
        indices are.
    """
    groups, member = torch.unique(index, return_inverse=True)
    best = scatter_max(values, member, len(groups))
    order = torch.arange(len(values), device=values.device)
    first = torch.full((len(groups),), len(values), device=values.device)
    wins = values == best[member]
    return groups, first.scatter_reduce(0, member[wins], order[wins], "amin")


def scatter_sum(values: Tensor, index: Tensor, size: int) -> Tensor:
    """(size, ...) sums of the entries of `values` (N, ...) with each index (N,)."""
    return values.new_zeros(size, *values.shape[1:]).index_add(0, index, values)


def scatter_mean(values: Tensor, index: Tensor, size: int) -> Tensor:
    """(size, ...) means; 0 where nothing has the index."""
    count = scatter_sum(torch.ones_like(index, dtype=values.dtype), index, size).clamp(min=1)
    return scatter_sum(values, index, size) / count.view(-1, *[1] * (values.ndim - 1))


def scatter_max(values: Tensor, index: Tensor, size: int, nothing: float = -math.inf) -> Tensor:
    """(size, ...) maxima of `values` (N, ...) by index (N,); `nothing` where nothing has the index."""
    best = values.new_full((size, *values.shape[1:]), -math.inf)
    wide = index.view(-1, *[1] * (values.ndim - 1)).expand_as(values)
    best = best.scatter_reduce(0, wide, values, "amax")
    return best if nothing == -math.inf else torch.where(best == -math.inf, torch.full_like(best, nothing), best)


def scatter_softmax(scores: Tensor, index: Tensor, size: int) -> Tensor:
    """(N,) each entry's share among the entries with the same index: a softmax per index, in one pass."""
    shifted = (scores - scatter_max(scores.detach(), index, size)[index]).exp()
    return shifted / scatter_sum(shifted, index, size)[index]
