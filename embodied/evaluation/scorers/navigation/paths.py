"""What paths are measured by: pure functions of lengths and of distances between points.

Success weighted by path length: Anderson et al. 2018, "On Evaluation of Embodied Navigation Agents". Coverage weighted
by length score: Jain et al. 2019. Normalised dynamic time warping: Magalhaes et al. 2019. SoftSPL: Datta et al. 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def length(positions: np.ndarray) -> float:
    """Metres along straight lines through (t, k) points; 0 for one point."""
    return float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())


def walked(distances: np.ndarray, path: np.ndarray) -> float:
    """Metres along a path of rows of (n, n) shortest distances; 0 for turning on the spot."""
    return float(distances[path[:-1], path[1:]].sum())


def efficiency(shortest: float, taken: float, least: float = 0.0) -> float:
    """What success is weighted by: shortest / max(taken, shortest, least), metres; in [0, 1].

    Where the start is a goal, so that `shortest` is 0, it is 1 for staying and 0 for walking, as CVDN's scorer has it;
    others divide by zero there.

    Args:
        least: what the denominator is at least (0.01 in the scorers of DUET's family, which then give 0 at a goal).
    """
    if least == 0 and shortest == 0:
        return float(taken == 0)
    return shortest / max(taken, shortest, least)


def soft_success(start: float, end: float) -> float:
    """How much of the way to the goal is gone: max(0, 1 - end / start), of distances to it in metres.

    Where the start is the goal it is 1 for being there at the end and 0 otherwise.
    """
    return float(end == 0) if start == 0 else max(0.0, 1.0 - end / start)


def warping(costs: np.ndarray) -> float:
    """Cost of dynamic time warping: the cheapest monotone alignment of one path with another, both ends fixed.

    Args:
        costs: (t, r), distance of each point of the one to each of the other.
    """
    total = np.full(costs.shape[1], np.inf)
    for place, row in enumerate(costs):
        before = total if place == 0 else np.minimum(total, np.concatenate([[np.inf], total[:-1]]))
        if place == 0:
            before[0] = 0.0
        # the cheapest way into column j enters the row at some k <= j and walks along it
        along = np.cumsum(row)
        total = along + np.minimum.accumulate(before - (along - row))
    return float(total[-1])


def fast_warping(one: np.ndarray, other: np.ndarray, radius: int = 1) -> float:
    """FastDTW (Salvador and Chan 2007) of (t, k) and (r, k) points under straight-line distance, metres.

    Approximates `warping` from above: both paths are halved until they are short, aligned there, and the alignment is
    refined in a band of `radius` around its projection. VLN-CE's configurations ask for it with radius 1.
    """
    return _fast_warping(np.asarray(one, dtype=float), np.asarray(other, dtype=float), radius)[0]


def similarity(warped: float, points: int, threshold: float) -> float:
    """nDTW: exp(-cost / (points of the reference * threshold)); 1 for the reference itself.

    Args:
        warped: cost of the warping, metres.
        points: of the reference.
        threshold: the distance of success, metres.
    """
    return math.exp(-warped / (points * threshold))


def coverage(costs: np.ndarray, taken: float, reference: float, threshold: float) -> float:
    """CLS: how well a path covers a reference, times how well its length fits.

    Args:
        costs: (t, r), distance of each point of the path to each of the reference, metres.
        taken, reference: their lengths, metres.
        threshold: the distance of success, metres.

    Returns:
        In [0, 1]. Where both lengths are 0 the lengths fit.
    """
    covered = float(np.exp(-costs.min(axis=0) / threshold).mean())
    expected = covered * reference
    if expected == 0 and taken == 0:
        return covered
    return covered * expected / (expected + abs(expected - taken))


def without_repeats(positions: np.ndarray) -> np.ndarray:
    """(t, k) points without those that equal the one before them."""
    moved = np.any(np.diff(positions, axis=0) != 0, axis=1)
    return positions[np.concatenate([[True], moved])]


def straight(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(t, r) straight-line distances of (t, k) to (r, k) points."""
    return np.linalg.norm(one[:, None, :] - other[None, :, :], axis=-1)


def _fast_warping(one: np.ndarray, other: np.ndarray, radius: int) -> tuple[float, list[tuple[int, int]]]:
    least = radius + 2
    if len(one) < least or len(other) < least:
        every = [(i, j) for i in range(len(one)) for j in range(len(other))]
        return _banded(one, other, every)
    _, coarse = _fast_warping(_halved(one), _halved(other), radius)
    near = {
        (i + di, j + dj) for i, j in coarse for di in range(-radius, radius + 1) for dj in range(-radius, radius + 1)
    }
    fine = {(2 * i + a, 2 * j + b) for i, j in near for a in (0, 1) for b in (0, 1)}
    return _banded(one, other, sorted(cell for cell in fine if 0 <= cell[0] < len(one) and 0 <= cell[1] < len(other)))


def _halved(points: np.ndarray) -> np.ndarray:
    """Means of neighbouring pairs; an odd last point is dropped, as the original does."""
    even = len(points) - len(points) % 2
    return points[:even].reshape(-1, 2, points.shape[1]).mean(axis=1)


def _banded(
    one: np.ndarray, other: np.ndarray, cells: Sequence[tuple[int, int]]
) -> tuple[float, list[tuple[int, int]]]:
    """Warping over some cells, in order, and the alignment."""
    rows, columns = np.array(cells).T
    costs = np.linalg.norm(one[rows] - other[columns], axis=1).tolist()
    best: dict[tuple[int, int], tuple[float, tuple[int, int] | None]] = {(-1, -1): (0.0, None)}
    nothing = (math.inf, None)
    for (i, j), cost in zip(cells, costs, strict=True):
        # ties go up, left, then diagonal, as in the package that VLN-CE calls
        total, origin = min(
            ((best.get(origin, nothing)[0] + cost, origin) for origin in ((i - 1, j), (i, j - 1), (i - 1, j - 1))),
            key=lambda found: found[0],
        )
        best[i, j] = (total, origin)
    place: tuple[int, int] | None = (len(one) - 1, len(other) - 1)
    end = best[len(one) - 1, len(other) - 1][0]
    way = []
    while place is not None and place != (-1, -1):
        way.append(place)
        place = best[place][1]
    return end, way[::-1]
