"""How far the houses' geodesics are off a 1 cm grid, beside what an 8-connected grid is off.

    python benchmarks/geodesics.py

The reference shares nothing with the visibility graph but the obstacles: an any-angle search (Theta*, Nash et al. 2007,
from one source, in Dijkstra's order) over the free cells of a 1 cm grid, lines of sight walked cell by cell; then each
path is pulled taut, bend by bend, from cell to cell. What remains is a path that can be walked but for the rounding of
obstacles to cells: up to a centimetre either way at a bend, and upwards where the search took the wrong one of two ways
around that are nearly as long. Its own error is measured first, where the distance is known by hand: around a wall.

The 8-connected grid is what one would use without either: Dijkstra on the same free cells, whose octile metric is up to
1 / cos(22.5 degrees) - 1 = 8.24 % too long. SPL divides by that.
"""

from __future__ import annotations

import argparse
import heapq
import math
import time

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from envs.house.compiling import njit
from envs.house.houses import SPLITS, load
from envs.house.plane import NORMALS

CELL = 0.01
LEAST = 1.0
"""Metres between the ends of a pair: nearer ones measure the grid's cells."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--houses", type=int, default=5, help="of the validation split, from its first on")
    parser.add_argument("--starts", type=int, default=4, help="per house")
    parser.add_argument("--goals", type=int, default=5, help="per start")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    own = around_a_wall()
    print(f"the reference's own error around a wall: median {own[0]:+.3f} %, largest {own[1]:.3f} %")
    rng = np.random.default_rng(options.seed)
    rows = []
    for place in range(options.houses):
        house = load(SPLITS["val"] + place)
        finder = house.finder()
        free, low = free_cells(finder.planes, house.spec.bounds)
        octile = eight_connected(free)
        number = np.cumsum(free.ravel()).reshape(free.shape) - 1
        found = []
        for _ in range(options.starts):
            start = cell_of(finder.random_point(rng), low)
            while not free[start] or not finder.is_navigable(point_of(start, low)[None])[0]:
                start = cell_of(finder.random_point(rng), low)
            goals: list[tuple[int, int]] = []
            while len(goals) < options.goals:
                goal = cell_of(finder.random_point(rng), low)
                far = math.dist(goal, start) * CELL >= LEAST
                if free[goal] and far and finder.is_navigable(point_of(goal, low)[None])[0]:
                    goals.append(goal)
            exact = finder.geodesics(point_of(start, low)[None], np.array([point_of(goal, low) for goal in goals]))[0]
            _, parents = search(free, *start)
            coarse = dijkstra(octile, indices=int(number[start])) * CELL
            for goal, ours in zip(goals, exact, strict=True):
                found.append((ours, taut(free, parents, *goal) * CELL, coarse[number[goal]]))
        rows += found
        print(f"house {house.spec.seed}, {free.shape[0]} x {free.shape[1]} cells: " + figures(np.array(found)))
    print(f"all {len(rows)} pairs: {figures(np.array(rows))}; {time.process_time():.0f} s of one core")


def figures(rows: np.ndarray) -> str:
    """From (P, 3) metres: exact, any-angle, 8-connected."""
    exact, reference, coarse = rows.T
    off, bias = 100 * (exact / reference - 1), 100 * (coarse / reference - 1)
    return (
        f"{exact.mean():.2f} m on average, off the reference by at most {np.abs(off).max():.3f} %, "
        f"median {np.median(np.abs(off)):.3f} % ({off.min():+.3f} to {off.max():+.3f}); "
        f"8-connected by at most {np.abs(bias).max():.2f} %, median {np.median(bias):.2f} %"
    )


def cell_of(point: np.ndarray, low: np.ndarray) -> tuple[int, int]:
    row, column = np.floor((point - low) / CELL).astype(int)
    return int(row), int(column)


def point_of(cell: tuple[int, int], low: np.ndarray) -> np.ndarray:
    """The middle of a cell: the same point for all methods."""
    return low + (np.array(cell) + 0.5) * CELL


def free_cells(planes: np.ndarray, bounds: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(X, Y) cells whose middle lies in no octagon, and the grid's low corner."""
    low = np.array(bounds[:2])
    shape = tuple(int(n) for n in np.ceil((np.array(bounds[2:]) - low) / CELL))
    free = np.ones(shape, bool)
    for octagon in planes:
        corner = np.maximum(np.floor((np.array([-octagon[0], -octagon[2]]) - low) / CELL).astype(int), 0)
        end = np.maximum(np.ceil((np.array([octagon[1], octagon[3]]) - low) / CELL).astype(int), 0)
        box = free[corner[0] : end[0], corner[1] : end[1]]
        at = low + (corner + np.stack(np.meshgrid(*map(np.arange, box.shape), indexing="ij"), -1) + 0.5) * CELL
        box &= ~(at @ NORMALS.T < octagon).all(-1)
    free[[0, -1]] = free[:, [0, -1]] = False
    return free, low


def eight_connected(free: np.ndarray) -> coo_array:
    """The graph of free cells, in cells; a diagonal step needs both cells beside it."""
    number = np.cumsum(free.ravel()).reshape(free.shape) - 1
    a, b, lengths = [], [], []
    for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1)):
        rows = slice(0, free.shape[0] - dx), slice(dx, None)
        columns = (slice(None), slice(None))
        if dy:
            columns = (slice(0, -1), slice(1, None)) if dy > 0 else (slice(1, None), slice(0, -1))
        both = free[rows[0], columns[0]] & free[rows[1], columns[1]]
        if dx and dy:
            both &= free[rows[1], columns[0]] & free[rows[0], columns[1]]
        a.append(number[rows[0], columns[0]][both])
        b.append(number[rows[1], columns[1]][both])
        lengths.append(np.full(both.sum(), math.hypot(dx, dy)))
    one, other, length = map(np.concatenate, (a, b, lengths))
    count = int(free.sum())
    return coo_array((np.tile(length, 2), (np.append(one, other), np.append(other, one))), shape=(count, count)).tocsr()


@njit(cache=True)
def clear(free, ax, ay, bx, by):
    """Whether all cells on the straight line between two cells are free."""
    steps = max(abs(bx - ax), abs(by - ay))
    for k in range(1, steps):
        if not free[int(np.floor(ax + (bx - ax) * k / steps + 0.5)), int(np.floor(ay + (by - ay) * k / steps + 0.5))]:
            return False
    return True


@njit(cache=True)
def search(free, sx, sy):
    """(X, Y) any-angle distances from a cell, in cells, and (X, Y, 2) the last bend on the way to each."""
    width, height = free.shape
    best = np.full(free.shape, np.inf)
    parent = np.full((width, height, 2), -1, np.int64)
    done = np.zeros(free.shape, np.bool_)
    best[sx, sy] = 0.0
    parent[sx, sy, 0], parent[sx, sy, 1] = sx, sy
    queue = [(0.0, sx, sy)]
    while len(queue):
        _, x, y = heapq.heappop(queue)
        if done[x, y]:
            continue
        done[x, y] = True
        px, py = parent[x, y, 0], parent[x, y, 1]
        for dx in range(-1, 2):
            for dy in range(-1, 2):
                nx, ny = x + dx, y + dy
                if not free[nx, ny] or done[nx, ny] or not (free[x, ny] and free[nx, y]):
                    continue
                direct = best[px, py] + np.hypot(nx - px, ny - py)
                if direct >= best[nx, ny] - 1e-9:
                    continue
                if clear(free, px, py, nx, ny):
                    best[nx, ny], parent[nx, ny, 0], parent[nx, ny, 1] = direct, px, py
                    heapq.heappush(queue, (direct, nx, ny))
                else:
                    step = best[x, y] + np.hypot(dx, dy)
                    if step < best[nx, ny] - 1e-9:
                        best[nx, ny], parent[nx, ny, 0], parent[nx, ny, 1] = step, x, y
                        heapq.heappush(queue, (step, nx, ny))
    return best, parent


@njit(cache=True)
def taut(free, parent, gx, gy):
    """The length in cells of the way to a cell with its bends moved to where it is shortest; infinite without a way."""
    if parent[gx, gy, 0] < 0:
        return np.inf
    xs, ys = [gx], [gy]
    while parent[xs[-1], ys[-1], 0] != xs[-1] or parent[xs[-1], ys[-1], 1] != ys[-1]:
        x, y = parent[xs[-1], ys[-1], 0], parent[xs[-1], ys[-1], 1]
        xs.append(x)
        ys.append(y)
    moved = True
    while moved:
        moved = False
        k = 1
        while k < len(xs) - 1:
            ax, ay, bx, by = xs[k - 1], ys[k - 1], xs[k + 1], ys[k + 1]
            if clear(free, ax, ay, bx, by):
                xs.pop(k)
                ys.pop(k)
                moved = True
                continue
            reach = 16
            while reach:
                best, to_x, to_y = np.hypot(xs[k] - ax, ys[k] - ay) + np.hypot(xs[k] - bx, ys[k] - by) - 1e-9, -1, -1
                for dx in range(-1, 2):
                    for dy in range(-1, 2):
                        x, y = xs[k] + reach * dx, ys[k] + reach * dy
                        if not (0 <= x < free.shape[0] and 0 <= y < free.shape[1]) or not free[x, y]:
                            continue
                        length = np.hypot(x - ax, y - ay) + np.hypot(x - bx, y - by)
                        if length < best and clear(free, ax, ay, x, y) and clear(free, x, y, bx, by):
                            best, to_x, to_y = length, x, y
                if to_x >= 0:
                    xs[k], ys[k] = to_x, to_y
                    moved = True
                else:
                    reach //= 2
            k += 1
    total = 0.0
    for k in range(len(xs) - 1):
        total += np.hypot(xs[k + 1] - xs[k], ys[k + 1] - ys[k])
    return total


def around_a_wall(pairs: int = 200) -> tuple[float, float]:
    """The reference's median and largest error in per cent where a wall 3 m long and 20 cm thick is walked around."""
    free = np.ones((602, 602), bool)
    free[[0, -1]] = free[:, [0, -1]] = False
    free[291:311, 1:301] = False
    rng = np.random.default_rng(0)
    errors = []
    for start in ((150, 40), (250, 200), (60, 260), (280, 100)):
        _, parents = search(free, *start)
        goals = np.stack([rng.integers(320, 590, pairs // 4), rng.integers(20, 280, pairs // 4)], -1)
        corners = np.array([[290.5, 300.5], [310.5, 300.5]])
        by_hand = np.linalg.norm(corners[0] - start) + 20.0 + np.linalg.norm(goals - corners[1], axis=1)
        errors.append(np.array([taut(free, parents, *goal) for goal in goals]) / by_hand - 1)
    off = 100 * np.concatenate(errors)
    return float(np.median(off)), float(np.abs(off).max())


if __name__ == "__main__":
    main()
