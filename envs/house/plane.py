"""The plane an agent's centre moves in: obstacles grown by the agent's radius, each a convex octagon.

An octagon is the eight numbers x0, x1, y0, y1, p0, p1, q0, q1 with x0 <= x <= x1, y0 <= y <= y1, p0 <= x + y <= p1 and
q0 <= x - y <= q1. Growing a rectangle or a circle by the octagon around the agent's disc is exact in this form, and
keeps the disc itself at least as far away: at most 8.3 % of the radius more, at a corner.
"""

from __future__ import annotations

import numpy as np

from envs.house.compiling import njit
from envs.house.scene import Scene

SKIN = 1e-6
"""Metres: a point this deep inside an obstacle still counts as touching it."""
SEAL = 0.000437
"""Metres added to the radius, so that two obstacles exactly two radii apart leave no passage without width."""

NORMALS = np.array([[-1, 0], [1, 0], [0, -1], [0, 1], [-1, -1], [1, 1], [-1, 1], [1, -1]], np.float64)
NORMALS[4:] /= np.sqrt(2)


def octagons(scene: Scene, radius: float, height: float, step: float = 0.02) -> np.ndarray:
    """(N, 8) offsets of the planes `NORMALS` (a point inside has normal . point < offset), without those in others.

    Parts above `height` or below `step` metres are no obstacle.
    """
    bounds = scene.bounds.astype(np.float64).round(4)
    keep = (bounds[:, 2] < height) & (bounds[:, 5] > step)
    bounds, is_round = bounds[keep], scene.round[keep] == 1
    x0, y0, x1, y1 = bounds[:, 0], bounds[:, 1], bounds[:, 3], bounds[:, 4]
    grow = radius + SEAL
    root = np.sqrt(2)
    sums = np.stack([-(x0 + y0), x1 + y1, -(x0 - y1), x1 - y0], 1) / root
    cx, cy, r = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2
    circle = np.stack([-(cx + cy) / root + r, (cx + cy) / root + r, -(cx - cy) / root + r, (cx - cy) / root + r], 1)
    sums = np.where(is_round[:, None], circle, sums)
    planes = np.concatenate([np.stack([-x0, x1, -y0, y1], 1), sums], 1) + grow
    planes = np.unique(planes, axis=0)
    inside: np.ndarray = np.all(planes[:, None] <= planes[None] + 1e-12, axis=-1)  # row lies in column
    np.fill_diagonal(inside, False)
    return np.ascontiguousarray(planes[~inside.any(1)])


def corners(planes: np.ndarray) -> np.ndarray:
    """(N, 8, 2) corners of octagons, counter-clockwise from the low end of the right side."""
    root = np.sqrt(2)
    x0, x1, y0, y1 = -planes[:, 0], planes[:, 1], -planes[:, 2], planes[:, 3]
    p0, p1, q0, q1 = -planes[:, 4] * root, planes[:, 5] * root, -planes[:, 6] * root, planes[:, 7] * root
    return np.stack(
        [
            np.stack(pair, -1)
            for pair in (
                (x1, x1 - q1), (x1, p1 - x1), (p1 - y1, y1), (y1 + q0, y1),
                (x0, x0 - q0), (x0, p0 - x0), (p0 - y0, y0), (y0 + q1, y0),
            )
        ],
        1,
    )  # fmt: skip


@njit(cache=True)
def depths(points, planes, normals):
    """How deep each point lies in the obstacle that holds it most deeply; negative: how far it is, at least."""
    out = np.full(len(points), -1e9)
    for i in range(len(points)):
        for k in range(len(planes)):
            least = 1e9
            for j in range(8):
                value = planes[k, j] - normals[j, 0] * points[i, 0] - normals[j, 1] * points[i, 1]
                if value < least:
                    least = value
                    if least <= out[i]:
                        break
            out[i] = max(out[i], least)
    return out


@njit(cache=True)
def blocked(ax, ay, bx, by, planes, normals, skin):
    """Whether a segment passes through the inside of any obstacle."""
    dx, dy = bx - ax, by - ay
    for k in range(len(planes)):
        low, high = 0.0, 1.0
        for j in range(8):
            start = planes[k, j] - skin - normals[j, 0] * ax - normals[j, 1] * ay
            rate = normals[j, 0] * dx + normals[j, 1] * dy
            if abs(rate) < 1e-12:
                if start <= 0:
                    high = -1.0
                    break
            elif rate > 0:
                high = min(high, start / rate)
            else:
                low = max(low, start / rate)
            if low >= high:
                break
        if high - low > 1e-9:
            return True
    return False


@njit(cache=True)
def sight(a, b, planes, normals, skin):
    """(A, B) the straight distance where b is seen from a, else infinity."""
    out = np.full((len(a), len(b)), np.inf)
    for i in range(len(a)):
        for j in range(len(b)):
            if not blocked(a[i, 0], a[i, 1], b[j, 0], b[j, 1], planes, normals, skin):
                out[i, j] = np.hypot(a[i, 0] - b[j, 0], a[i, 1] - b[j, 1])
    return out


@njit(cache=True)
def through(lengths, known, other):
    """For each row of two tables of lengths to corners, the best way over known lengths between corners."""
    out = np.full((len(lengths), len(other)), np.inf)
    for i in range(len(lengths)):
        for a in range(lengths.shape[1]):
            if lengths[i, a] < np.inf:
                for j in range(len(other)):
                    for b in range(other.shape[1]):
                        if other[j, b] < np.inf:
                            out[i, j] = min(out[i, j], lengths[i, a] + known[a, b] + other[j, b])
    return out


@njit(cache=True)
def slide(sx, sy, ex, ey, planes, normals, skin, sliding):
    """Move from a free point towards another; at an obstacle stop, or go on along its side.

    Returns the end and whether an obstacle was met.
    """
    x, y = sx, sy
    dx, dy = ex - sx, ey - sy
    hit = False
    for _ in range(8):
        if dx * dx + dy * dy < 1e-16:
            break
        best, side = 1.0, -1
        for k in range(len(planes)):
            low, high, enters = -1e18, 1e18, -1
            shallow, least = 1e18, -1
            for j in range(8):
                start = planes[k, j] - 0.5 * skin - normals[j, 0] * x - normals[j, 1] * y
                rate = normals[j, 0] * dx + normals[j, 1] * dy
                if start < shallow:
                    shallow, least = start, j
                if abs(rate) < 1e-15:
                    if start <= 0:
                        high = -1e18
                elif rate > 0:
                    high = min(high, start / rate)
                elif start / rate > low:
                    low, enters = start / rate, j
            if shallow > 0:  # already touching: only deeper is forbidden
                if normals[least, 0] * dx + normals[least, 1] * dy < -1e-15:
                    best, side = 0.0, least
            elif low < high - 1e-12 and 0 <= low < best:
                best, side = low, enters
        x, y = x + best * dx, y + best * dy
        if side < 0:
            break
        hit = True
        x, y = x + 1e-8 * normals[side, 0], y + 1e-8 * normals[side, 1]
        if not sliding:
            break
        tx, ty = -normals[side, 1], normals[side, 0]
        along = (1 - best) * (dx * tx + dy * ty)
        dx, dy = along * tx, along * ty
    return x, y, hit
