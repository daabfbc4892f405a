"""Shortest ways on a grid of the plan, as the metres that remain from each cell to the nearest of some goals.

A field of remaining metres, unlike a single way, says what to do wherever the agent ends up: go where less remains.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

NEIGHBOURS = ((0, 1, 1.0), (1, 0, 1.0), (1, 1, math.sqrt(2)), (1, -1, math.sqrt(2)))
MARGIN = 15
"""Cells around what matters that a way through unknown cells may use."""


def walking_cost(
    occupied: np.ndarray,
    known: np.ndarray,
    resolution: float,
    radius: float,
    comfort: float = 0.0,
    unknown: float | None = None,
) -> np.ndarray:
    """(S, S) what a metre costs in each cell; infinite where the agent cannot be.

    Args:
        occupied, known: (S, S), bool.
        resolution: metres per cell.
        radius: metres that ways keep from the middle of occupied cells.
        comfort: metres; nearer than this to an obstacle a metre costs up to three times as much.
        unknown: what a metre costs where nobody has looked; None: one cannot go there.
    """
    clear = np.full(occupied.shape, np.inf)
    if occupied.any():
        clear = ndimage.distance_transform_edt(~occupied) * resolution
    cost = np.ones(occupied.shape)
    if comfort > radius:
        cost += 2 * np.clip((comfort - clear) / (comfort - radius), 0, 1)
    cost[~known] = np.inf if unknown is None else unknown
    cost[clear <= radius] = np.inf
    return cost


def remaining(cost: np.ndarray, goals: np.ndarray, resolution: float, within: np.ndarray | None = None) -> np.ndarray:
    """(S, S) metres, weighted by `cost`, from each cell to the nearest goal; infinite where no way leads to one.

    Steps go to the eight neighbours, and a diagonal one needs both cells beside it, or it would cut a corner.

    Args:
        cost: (S, S), see `walking_cost`.
        goals: (S, S), bool; those of infinite cost count for nothing.
        resolution: metres per cell.
        within: (S, S), bool: ways stay in the box of these cells and a margin; None: of all that can be walked on.
    """
    found = np.full(cost.shape, np.inf)
    goals = goals & np.isfinite(cost)
    inside = np.isfinite(cost) if within is None else within | goals
    if not goals.any():
        return found
    box = _box(inside, 0 if within is None else MARGIN)
    price, ends = cost[box], goals[box]
    rows, columns = price.shape
    order = np.arange(rows * columns).reshape(rows, columns)
    free, flat = np.isfinite(price).ravel(), price.ravel()
    starts, stops, lengths = [], [], []
    for i, j, length in NEIGHBOURS:
        a = order[: rows - i, max(0, -j) : columns - max(0, j)].ravel()
        b = order[i:, max(0, j) : columns + min(0, j)].ravel()
        both = free[a] & free[b]
        if i and j:
            both &= free[a + columns] & free[a + j]
        a, b = a[both], b[both]
        starts.append(a)
        stops.append(b)
        lengths.append((flat[a] + flat[b]) * (length * resolution / 2))
    edges = (np.concatenate(lengths), (np.concatenate(starts), np.concatenate(stops)))
    graph = coo_array(edges, shape=(rows * columns, rows * columns)).tocsr()
    found[box] = dijkstra(graph, directed=False, indices=np.flatnonzero(ends), min_only=True).reshape(rows, columns)
    return found


def descend(field: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
    """(N, 2) the cells of the way on from a cell, to where nothing remains; only the cell itself where no way leads."""
    way = [cell]
    while np.isfinite(field[way[-1]]) and field[way[-1]] > 0:
        row, column = way[-1]
        low, left = max(0, row - 1), max(0, column - 1)
        around = field[low : row + 2, left : column + 2]
        i, j = np.unravel_index(int(around.argmin()), around.shape)
        following = low + int(i), left + int(j)
        if field[following] >= field[way[-1]]:
            break
        way.append(following)
    return np.array(way)


def _box(cells: np.ndarray, margin: int) -> tuple[slice, slice]:
    sides = []
    for axis in (1, 0):
        there = np.flatnonzero(cells.any(axis))
        sides.append(slice(max(0, int(there[0]) - margin), int(there[-1]) + 1 + margin))
    return sides[0], sides[1]
