"""Maps to look at: what a memory holds of an episode, from above, and as points in space.

Free cells are light, what is in the way is dark or in the colour of its category, what nobody has looked at is grey;
frontiers are orange, the agent red, its way blue and pale where it is long ago. The palette and the marks are those of
`embodied.drawing`, so that a belief beside the truth can be compared at a glance. Places are metres from the grid's
middle, as in `maps.grid`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from embodied.drawing import FLOOR, FRONTIER, GOAL, HALO, INK, LATE, UNKNOWN, Canvas, category_colours, shades
from embodied.interaction import Cloud
from maps.base import Memory
from maps.grid import GridMemory, PlacedMemory
from maps.occupancy import OccupancyMap
from maps.smnet import ProjectedMap
from maps.value import ValueMap
from maps.voxels import VoxelMap

BLOCKED = (112, 117, 127)
"""What is in the way, of no category that is known."""
FEATURE_AXES = 7
"""Seed of the fixed directions along which features are looked at."""


class Edge(Protocol):
    """What is drawn of a frontier; `maps.frontier.Frontier` has it."""

    cells: np.ndarray
    middle: np.ndarray


class MapPicture:
    """Draws maps of one episode; a part that a policy can be given.

    Args:
        height: pixels of the square picture.
        least: metres across it at first; it grows with what is known, `step` metres at a time.
        step: see `least`.
        egocentric: the agent stays in the middle and looks up, and the picture keeps its `least` metres. Otherwise the
            plan stands still with its x axis up: where poses start from the episode's start, that is straight ahead.

    Raises:
        ValueError: a picture without extent.
    """

    def __init__(self, height: int = 512, least: float = 8.0, step: float = 2.0, egocentric: bool = False) -> None:
        if height < 16 or least <= 0 or step <= 0:
            sizes = f"height={height}, least={least} and step={step}"
            raise ValueError(f"MapPicture: {sizes} should be at least 16 pixels and above 0 metres")
        self.height, self.least, self.step, self.egocentric = height, least, step, egocentric

    def draw(
        self,
        grid: PlacedMemory,
        memory: Memory,
        slot: int = 0,
        *,
        walked: np.ndarray | None = None,
        frontiers: Sequence[Edge] = (),
        way: np.ndarray | None = None,
        goal: np.ndarray | None = None,
        values: tuple[ValueMap, Memory] | None = None,
    ) -> np.ndarray:
        """A map as it is now.

        Args:
            grid: a `GridMemory` (where it decodes no categories, the features it remembers) or a `VoxelMap`.
            memory, slot: the episode.
            walked: (K, 2) or (K, 3) places where the agent was.
            frontiers: to outline, with their middles.
            way: (K, 2) where it means to walk.
            goal: (2,) what it walks to.
            values: a value map of the same extent, drawn below what is in the way.

        Returns:
            uint8 (height, height, 3).

        Raises:
            ValueError: a map that is not drawn as cells of the plan.
        """
        layers = [] if values is None else [cell_colours(values[0], values[1], slot)]
        layers.append(cell_colours(grid, memory, slot, free=values is None))
        agent = memory["agent"][slot].detach().cpu().numpy()
        canvas = self._canvas(np.any([layer[..., 3] > 0 for layer in layers], 0), grid.grid.resolution, agent)
        for layer in layers:
            canvas.cells(layer, grid.grid.resolution)
        if len(frontiers):
            canvas.cells(_edges(frontiers, grid.grid.size), grid.grid.resolution)
            for frontier in frontiers:
                canvas.mark(frontier.middle, 2.4, FRONTIER)
        if way is not None and len(way) > 1:
            canvas.dashes(way, LATE, 1.4, 3.5)
        if goal is not None:
            canvas.mark(goal, 4.0, GOAL)
        if walked is not None and len(walked):
            canvas.walk(np.asarray(walked))
            canvas.mark(walked[0], 3.0, HALO, INK)
        canvas.agent(agent[:2], float(agent[2]), view=grid.field_of_view)
        return canvas.picture()

    def _canvas(self, known: np.ndarray, resolution: float, agent: np.ndarray) -> Canvas:
        if self.egocentric:
            return Canvas(agent[:2], (self.least, self.least), self.height, float(agent[2]), UNKNOWN)
        where = np.argwhere(known) if known.any() else np.array(known.shape)[None] // 2
        low = np.minimum((where.min(0) - len(known) / 2) * resolution, agent[:2])
        high = np.maximum((where.max(0) + 1 - len(known) / 2) * resolution, agent[:2])
        low, high = np.floor(low / self.step) * self.step, np.ceil(high / self.step) * self.step
        across = max(self.least, float((high - low).max()))
        return Canvas((low + high) / 2, (across, across), self.height, 0.0, UNKNOWN)


def cell_colours(grid: PlacedMemory, memory: Memory, slot: int = 0, free: bool = True) -> np.ndarray:
    """(size, size, 4) uint8, x along rows and y along columns: each cell's colour, clear where nothing is known.

    Args:
        grid: see `MapPicture.draw`.
        memory, slot: the episode.
        free: whether free cells are painted, or left to what lies below.

    Raises:
        ValueError: a map that is not drawn as cells of the plan.
    """
    if isinstance(grid, OccupancyMap):
        return occupancy_colours(
            grid.free(memory)[slot] if free else None,
            grid.occupied(memory)[slot],
            grid.categories(memory)[slot] if grid.classes else None,
        )
    if isinstance(grid, ValueMap):
        return value_colours(grid.values(memory)[slot, 0], grid.picture(memory["confidence"])[slot] > 0)
    if isinstance(grid, ProjectedMap) and grid.decoder is not None:
        every = torch.arange(grid.grid.cells, device=memory.device)[None]
        with torch.no_grad():
            state, seen = grid.cells(memory, memory.rows([slot]), every)
            told = grid.decode(state)[0].argmax(0)
        return category_picture(told, grid.picture(seen)[0])
    if isinstance(grid, VoxelMap):
        places, features = grid.cloud(memory, slot)
        return from_above(places, feature_colours(features), grid.grid.size, grid.grid.resolution)
    if isinstance(grid, GridMemory):
        every = torch.arange(grid.grid.cells, device=memory.device)[None]
        with torch.no_grad():
            features, seen = grid.cells(memory, memory.rows([slot]), every)
        colours = np.zeros((grid.grid.cells, 4), np.uint8)
        known = _array(seen)[0]
        colours[known, :3] = feature_colours(features[0, seen[0]])
        colours[known, 3] = 255
        return colours.reshape(grid.grid.size, grid.grid.size, 4)
    raise ValueError(f"{type(grid).__name__} is not drawn as cells of the plan")


def is_drawn(grid: PlacedMemory) -> bool:
    """Whether a map is drawn as cells of the plan."""
    return isinstance(grid, GridMemory | VoxelMap)


def occupancy_colours(free: Any, occupied: Any, categories: Any = None) -> np.ndarray:
    """(I, J, 4) uint8 of free and occupied cells (I, J), bool, and of their categories (I, J), -1 where unknown."""
    occupied = _array(occupied)
    colours = np.zeros((*occupied.shape, 4), np.uint8)
    if free is not None:
        colours[_array(free)] = (*FLOOR, 255)
    colours[occupied] = (*BLOCKED, 255)
    if categories is not None:
        numbers = _array(categories)
        told = occupied & (numbers >= 0)
        colours[told, :3] = category_colours(max(41, int(numbers.max()) + 1))[numbers[told]]
    return colours


def category_picture(categories: Any, seen: Any) -> np.ndarray:
    """(I, J, 4) uint8 of a semantic map: categories (I, J) where they were `seen` (I, J), bool."""
    numbers, seen = _array(categories), _array(seen)
    colours = np.zeros((*numbers.shape, 4), np.uint8)
    colours[seen, :3] = category_colours(max(41, int(numbers.max()) + 1))[numbers[seen]]
    colours[seen, 3] = 255
    return colours


def value_colours(values: Any, known: Any) -> np.ndarray:
    """(I, J, 4) uint8 of values (I, J) where they are `known` (I, J), bool, from pale for the lowest to deep."""
    values, known = _array(values), _array(known)
    colours = np.zeros((*values.shape, 4), np.uint8)
    if known.any():
        low, high = float(values[known].min()), float(values[known].max())
        colours[known, :3] = shades(values[known], low, max(high, low + 1e-6))
        colours[known, 3] = 255
    return colours


def from_above(places: Any, colours: Any, size: int, resolution: float) -> np.ndarray:
    """(size, size, 4) uint8: the highest of points (N, 3) in each cell has its colour (N, 3), uint8."""
    places, colours = _array(places), _array(colours)
    picture = np.zeros((size, size, 4), np.uint8)
    at = np.floor(places[:, :2] / resolution + size / 2).astype(np.int64)
    inside = ((at >= 0) & (at < size)).all(1)
    order = np.flatnonzero(inside)[np.argsort(places[inside, 2], kind="stable")]
    picture[at[order, 0], at[order, 1], :3] = colours[order]  # of several that are written, the last one stays
    picture[at[order, 0], at[order, 1], 3] = 255
    return picture


def feature_colours(features: Any) -> np.ndarray:
    """(N, 3) uint8: alike features (N, F) get alike colours, and the same ones in every picture of an episode.

    Three numbers that are 0 to 1 are colours already. Others are looked at along three fixed directions, each stretched
    to its own range over the points.
    """
    features = _array(features).astype(np.float64)
    if features.shape[1] == 3 and (not len(features) or 0 <= features.min() <= features.max() <= 1):
        return np.round(255 * features).astype(np.uint8)
    directions = np.random.default_rng(FEATURE_AXES).normal(size=(features.shape[1], 3))
    directions = directions if features.shape[1] < 3 else np.linalg.qr(directions)[0]
    seen = features @ directions
    spread = 2 * seen.std(0).clip(1e-9) if len(seen) else np.ones(3)
    share = (np.tanh((seen - seen.mean(0)) / spread) + 1) / 2 if len(seen) else seen
    return np.round(60 + 170 * share).astype(np.uint8)


def cloud_of(grid: VoxelMap, memory: Memory, slot: int = 0) -> Cloud:
    """The middles of an episode's voxels, in the frame of its poses, coloured as `feature_colours` says."""
    places, features = grid.cloud(memory, slot)
    return Cloud((places + memory["origin"][slot]).detach().cpu().numpy().astype(np.float32), feature_colours(features))


def _edges(frontiers: Sequence[Edge], size: int) -> np.ndarray:
    colours = np.zeros((size, size, 4), np.uint8)
    for frontier in frontiers:
        colours[tuple(np.asarray(frontier.cells).T)] = (*FRONTIER, 255)
    return colours


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
