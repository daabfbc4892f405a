"""Frontiers: where what is known to be free ends, and which of them to go to (Yamauchi 1997).

A frontier is a run of free cells that touch cells nobody has looked at; the runs are told apart by scipy's connected
components. What to choose: the nearest by the way through free cells, or the one with the best value around it (VLFM).
Everything here is of one episode: frontiers differ in number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from maps.base import Memory
from maps.occupancy import OccupancyMap
from maps.value import ValueMap

AROUND = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Frontier:
    """A run of free cells next to the unknown.

    Attributes:
        cells: (N, 2) rows and columns.
        middle: (2,) the one nearest to their mean of those that can be reached, metres from the grid's middle.
        distance: metres of way through free cells from the agent to `middle`; infinite where there is none.
    """

    cells: np.ndarray
    middle: np.ndarray
    distance: float


class FrontierFinder:
    """Finds the frontiers of an occupancy map, and ways to them.

    Args:
        least: cells; smaller frontiers are not worth going to.
        radius: of the agent, metres: ways keep so far from obstacles.

    Raises:
        ValueError: a size below 1, or a negative radius.
    """

    def __init__(self, least: int = 3, radius: float = 0.2) -> None:
        if least < 1 or radius < 0:
            raise ValueError(f"FrontierFinder: least={least} and radius={radius} should be at least 1 and 0")
        self.least, self.radius = least, radius

    def find(self, grid: OccupancyMap, memory: Memory, slot: int = 0) -> list[Frontier]:
        """The frontiers of an episode, the largest first."""
        open_ = frontier_mask(grid.free(memory)[slot], grid.explored(memory)[slot])
        labels, count = ndimage.label(open_.cpu().numpy(), AROUND)
        distance, _ = self._ways(grid, memory, slot)
        found = []
        for label, box in enumerate(ndimage.find_objects(labels, count), start=1):
            cells = np.argwhere(labels[box] == label) + [side.start for side in box]
            if len(cells) < self.least:
                continue
            reachable = np.isfinite(distance[tuple(cells.T)])
            candidates = cells[reachable] if reachable.any() else cells
            middle = candidates[np.linalg.norm(candidates - cells.mean(0), axis=1).argmin()]
            place = grid.grid.centres(torch.tensor(middle[0] * grid.grid.size + middle[1])).numpy()
            found.append(Frontier(cells, place, float(distance[tuple(middle)])))
        return sorted(found, key=lambda frontier: -len(frontier.cells))

    def nearest(self, frontiers: list[Frontier]) -> Frontier | None:
        """The frontier with the shortest way; None where none can be reached."""
        reachable = [frontier for frontier in frontiers if np.isfinite(frontier.distance)]
        return min(reachable, key=lambda frontier: frontier.distance, default=None)

    def best(
        self, frontiers: list[Frontier], values: ValueMap, memory: Memory, slot: int = 0, around: float = 0.5
    ) -> Frontier | None:
        """The reachable frontier with the highest value within `around` metres; of equals the nearest."""
        reachable = [frontier for frontier in frontiers if np.isfinite(frontier.distance)]
        if not reachable:
            return None
        places = torch.tensor(np.stack([frontier.middle for frontier in reachable]))
        value = values.best_within(memory, slot, places, around).tolist()
        return reachable[min(range(len(reachable)), key=lambda n: (-value[n], reachable[n].distance))]

    def way(self, grid: OccupancyMap, memory: Memory, place: np.ndarray, slot: int = 0) -> np.ndarray:
        """The way (N, 2) from the agent to a place, cell by cell, metres from the grid's middle.

        Raises:
            ValueError: there is none.
        """
        distance, before = self._ways(grid, memory, slot)
        at, inside = grid.grid.index(torch.as_tensor(place, dtype=torch.float32))
        cell = int(at)
        if not inside or not np.isfinite(distance.flat[cell]):
            raise ValueError(f"no way through free cells leads to ({place[0]:.2f}, {place[1]:.2f})")
        cells = []
        while cell >= 0:
            cells.append(cell)
            cell = int(before[cell])
        return grid.grid.centres(torch.tensor(cells[::-1])).numpy()

    def _ways(self, grid: OccupancyMap, memory: Memory, slot: int) -> tuple[np.ndarray, np.ndarray]:
        """Metres of way to each cell (size, size), and the cell before it on the way (size * size,), negative: none."""
        size = grid.grid.size
        occupied = grid.occupied(memory)[slot].cpu().numpy()
        walkable = grid.free(memory)[slot].cpu().numpy()
        if occupied.any():
            walkable = walkable & (ndimage.distance_transform_edt(~occupied) * grid.grid.resolution > self.radius)
        at, on = grid.grid.index(memory["agent"][slot, :2])
        start = int(at)
        if not bool(on):
            return np.full((size, size), np.inf), np.full(size * size, -1)
        away = np.hypot(*(np.indices((size, size)) - np.array(divmod(start, size))[:, None, None]))
        walkable |= (away <= self.radius / grid.grid.resolution + 1.5) & ~occupied  # from where it is, it can go
        concerned = walkable.copy()
        concerned.flat[start] = True
        box = ndimage.find_objects(concerned.astype(np.int8))[0]  # all else costs nothing, and a grid is mostly that
        cells = np.arange(size * size).reshape(size, size)[box]
        inside = walkable[box]
        rows, columns = inside.shape
        order, free = np.arange(rows * columns).reshape(rows, columns), inside.ravel()
        edges = []
        for i, j, length in ((0, 1, 1.0), (1, 0, 1.0), (1, 1, 2**0.5), (1, -1, 2**0.5)):
            a = order[: rows - i, max(0, -j) : columns - max(0, j)].ravel()
            b = order[i:, max(0, j) : columns + min(0, j)].ravel()
            both = free[a] & free[b]
            if i and j:  # a diagonal step needs both cells beside it, or it would cut a corner
                both &= free[a + columns] & free[a + j]
            edges.append((a[both], b[both], np.full(both.sum(), length * grid.grid.resolution)))
        starts, ends, lengths = (np.concatenate(column) for column in zip(*edges, strict=True))
        graph = coo_array((lengths, (starts, ends)), shape=(rows * columns, rows * columns)).tocsr()
        here = int(np.searchsorted(cells.ravel(), start))
        distance, before = dijkstra(graph, directed=False, indices=here, return_predecessors=True)
        metres, came = np.full((size, size), np.inf), np.full((size, size), -1)
        metres[box] = distance.reshape(rows, columns)
        came[box] = np.where(before >= 0, cells.ravel()[np.maximum(before, 0)], -1).reshape(rows, columns)
        return metres, came.ravel()


def frontier_mask(free: Tensor, explored: Tensor) -> Tensor:
    """(size, size), bool: free cells that touch a cell nobody has looked at, in any of eight directions."""
    unknown = torch.nn.functional.max_pool2d((~explored).float()[None, None], 3, 1, 1)[0, 0] > 0
    return free & unknown
