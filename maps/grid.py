"""What all bird's-eye-view maps share: a grid around where the episode began, and where a view's pixels fall in it.

The grid is allocentric: it keeps the world's axes and its middle is the plan position of the episode's first view, so
that a map doesn't depend on where in the world a house stands. Heights are measured from the floor, which lies `eye`
below the camera. What falls off the grid is not remembered.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from embodied.building import check_arguments
from embodied.interaction import Drawings
from maps.base import MapMemory, MapTokens, Memory, Text, View, thin
from maps.geometry import Grid, bilinear, heading_of, unproject
from maps.windows import EgocentricWindow

Columns = dict[str, tuple[tuple[int, ...], torch.dtype, float]]


@dataclass(frozen=True)
class Surroundings:
    """What a grid map is told of its camera and its size.

    Attributes:
        camera: whose observations are read.
        field_of_view: of that camera, in degrees across the width.
        size: cells per side of the grid; the episode begins in its middle.
        resolution: metres per cell.
        near, far: depths outside of these, in metres, are not believed.
        eye: height of the camera above the floor in metres.
        ceiling: what lies higher than this above the floor, in metres, is left out.
        stride: of so many rows and columns of pixels, one is looked at; what a step costs falls with its square.
        window: cells per side of the egocentric window that is read as tokens, a multiple of `patch`.
        patch: cells per side of what becomes one token.

    Raises:
        ValueError: a camera or a grid that can't be.
    """

    camera: str = "front"
    field_of_view: float = 90.0
    size: int = 240
    resolution: float = 0.1
    near: float = 0.05
    far: float = 5.0
    eye: float = 1.25
    ceiling: float = 1.75
    stride: int = 1
    window: int = 64
    patch: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.field_of_view < 180:
            raise ValueError(f"field_of_view {self.field_of_view} should be from 1 to 179 degrees")
        if self.stride < 1:
            raise ValueError(f"stride {self.stride} should be at least 1")
        if not 0 <= self.near < self.far:
            raise ValueError(f"near={self.near} and far={self.far} should be depths in metres, the nearer first")


@dataclass(frozen=True)
class Points:
    """Where the pixels of B agents' views lie; P = V x H x W of those looked at, view by view, row by row.

    Attributes:
        rows: (B,) the slots.
        places: (B, P, 2) metres from the grid's middle.
        heights: (B, P) metres above the floor.
        cells: (B, P) cell indices, 0 where `seen` is False.
        seen: (B, P), bool: there is something, within reach and on the grid.
        view: what was seen.
        agents: (B, V, 3) x and y in metres from the grid's middle, and heading.
    """

    rows: Tensor
    places: Tensor
    heights: Tensor
    cells: Tensor
    seen: Tensor
    view: View
    agents: Tensor


class PlacedMemory(MapMemory):
    """A map that knows where in the plan, around where the episode began, pixels fall.

    Args:
        width: size D of a token.
        surroundings: see `Surroundings`; what isn't said is as there.

    Raises:
        ValueError: a camera or grid that can't be.
    """

    def __init__(self, width: int, surroundings: Mapping[str, Any] | None = None) -> None:
        super().__init__(width)
        check_arguments(Surroundings, surroundings or {})
        self.around = around = Surroundings(**(surroundings or {}))
        self.camera, self.field_of_view = around.camera, around.field_of_view
        self.near, self.far = around.near, around.far
        self.eye, self.ceiling, self.grid = around.eye, around.ceiling, Grid(around.size, around.resolution)

    def begin(self, slots: int) -> Memory:
        return Memory(slots, self.device, self.every_column())

    def every_column(self) -> Columns:
        """All that the memory holds: `columns`, the world position of the middle's floor, and where the agent is."""
        common: Columns = {"origin": ((3,), torch.float32, 0.0), "agent": ((3,), torch.float32, 0.0)}
        begun: Columns = {"begun": ((), torch.bool, 0)}
        return common | begun | self.columns()

    @abstractmethod
    def columns(self) -> Columns:
        """What else the memory holds, by name."""

    def place(
        self, memory: Memory, observation: Mapping[str, Any], slots: Sequence[int] | Tensor | None = None
    ) -> Points:
        """Where a step's pixels fall. The memory's `agent` becomes the (last) view's place."""
        view, rows = self.sees(memory, observation, slots)
        position = view.pose[:, :, :3, 3]
        new = ~memory["begun"][rows]
        floor = position[:, :1, 2] - self.eye
        first = torch.cat([position[:, 0, :2], floor], dim=-1)
        memory["origin"][rows] = origin = torch.where(new.unsqueeze(-1), first, memory["origin"][rows])
        memory["begun"][rows] = True
        away = position - origin.unsqueeze(1)
        agents = torch.cat([away[..., :2], heading_of(view.pose).unsqueeze(-1)], dim=-1)
        memory["agent"][rows] = agents[:, -1]
        points = thin(unproject(view.depth, view.pose, self.field_of_view), self.around.stride).flatten(1, 3)
        view = view.every(self.around.stride)
        points = points - torch.cat([origin[:, None, :2], floor.unsqueeze(1)], dim=-1)
        depth = view.depth.flatten(1)
        cells, inside = self.grid.index(points[..., :2])
        seen = inside & (depth > self.near) & (depth < self.far) & (points[..., 2] < self.ceiling)
        return Points(rows, points[..., :2], points[..., 2], cells, seen, view, agents)

    def drawings(self, memory: Memory, slot: int) -> Drawings:
        from maps.pictures import MapPicture, is_drawn  # which knows every kind of map

        return {"map": MapPicture().draw(self, memory, slot)} if is_drawn(self) else {}

    @staticmethod
    def to_world(memory: Memory, slot: int, places: Tensor) -> Tensor:
        """World coordinates (..., 2) of places (..., 2) that are given from the grid's middle."""
        return places + memory["origin"][slot, :2]

    def picture(self, values: Tensor) -> Tensor:
        """Cells (B, size * size, ...) as images (B, ..., size, size): rows along x, columns along y."""
        return values.unflatten(1, (self.grid.size, self.grid.size)).movedim((1, 2), (-2, -1))


class GridMemory(PlacedMemory):
    """A map over a grid of the plan, read as tokens of the window around the agent.

    Args:
        width, surroundings: see `PlacedMemory`.
        channels: how many numbers per cell the window reads.

    Raises:
        ValueError: a camera, grid or window that can't be.
    """

    def __init__(self, width: int, channels: int, surroundings: Mapping[str, Any] | None = None) -> None:
        super().__init__(width, surroundings)
        self.window = EgocentricWindow(self.grid, channels, width, self.around.window, self.around.patch)

    @abstractmethod
    def cells(self, memory: Memory, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """What the window reads: (B, N, C) and whether anything is known, (B, N), of cells `index` (B, N)."""

    def forward(
        self, memory: Memory, text: Text | None = None, slots: Sequence[int] | Tensor | None = None
    ) -> MapTokens:
        rows = memory.rows(slots)
        index, inside = self.window.cells_of(memory["agent"][rows])
        values, known = self.cells(memory, rows, index)
        return self.window(values, known & inside)


def pixel_features(view: View) -> Tensor:
    """The feature of each pixel of a view, (B, V x H x W, F), bilinearly upsampled."""
    pictures = view.features
    assert pictures is not None
    batch, views = pictures.shape[:2]
    rows, columns = (place.expand(batch * views, -1) for place in view.pixels())
    each = bilinear(pictures.flatten(0, 1).float(), rows, columns, *view.whole)
    return each.unflatten(0, (batch, views)).flatten(1, 2)
