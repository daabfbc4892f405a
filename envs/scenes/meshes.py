"""The shapes of things as triangles, one unit wide from the middle: renderers scale them.

Every shape stands on z = -`HALF_HEIGHTS[shape]` and reaches about 1 to each side, so that a word for a size means the
same for all of them. Few triangles: the software renderer's time goes with their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

HALF_HEIGHTS = {"cube": 0.84, "ball": 1.0, "cylinder": 1.0, "cone": 1.0, "ring": 0.36, "cross": 0.5}
AROUND = 20
Point = tuple[float, float]


@dataclass(frozen=True)
class Mesh:
    """Triangles with their normals and texture coordinates.

    Attributes:
        vertices, normals: (V, 3) float64.
        uvs: (V, 2) float64; the texture repeats with period 1.
        triangles: (T, 3) int64, counter-clockwise seen from outside.
    """

    vertices: np.ndarray
    normals: np.ndarray
    uvs: np.ndarray
    triangles: np.ndarray


@cache
def mesh_of(shape: str) -> Mesh:
    """The mesh of one of `vocabulary.SHAPES`."""
    half = HALF_HEIGHTS[shape]
    if shape == "cube":
        return _prism([(-half, -half), (half, -half), (half, half), (-half, half)], half)
    if shape == "cross":
        a, b = 0.36, 1.05
        outline = [
            (-a, -b),
            (a, -b),
            (a, -a),
            (b, -a),
            (b, a),
            (a, a),
            (a, b),
            (-a, b),
            (-a, a),
            (-b, a),
            (-b, -a),
            (-a, -a),
        ]
        return _prism(outline, half)
    if shape == "cylinder":
        return _revolved([[(0.0, -1.0), (0.8, -1.0)], [(0.8, -1.0), (0.8, 1.0)], [(0.8, 1.0), (0.0, 1.0)]])
    if shape == "cone":
        return _revolved([[(0.0, -1.0), (1.0, -1.0)], [(1.0, -1.0), (0.0, 1.0)]])
    if shape == "ball":
        return _revolved([_arc(0.0, 0.0, 1.0, -np.pi / 2, np.pi / 2, 12)])
    assert shape == "ring", shape
    return _revolved([_arc(1.05 - half, 0.0, half, -np.pi, np.pi, 8)])


@cache
def hull_points(shape: str) -> np.ndarray:
    """The points (P, 3) whose convex hull is the shape's."""
    return np.unique(mesh_of(shape).vertices.round(9), axis=0)


def _arc(r: float, z: float, radius: float, first: float, last: float, n: int) -> list[Point]:
    angles = np.linspace(first, last, n + 1)
    return [(r + radius * float(np.cos(a)), z + radius * float(np.sin(a))) for a in angles]


def _revolved(curves: Sequence[Sequence[Point]], n: int = AROUND) -> Mesh:
    """The surface of curves (radius, height), each smooth in itself, turned about the z axis; given bottom to top."""
    vertices: list[np.ndarray] = []
    normals: list[np.ndarray] = []
    uvs: list[np.ndarray] = []
    triangles: list[tuple[int, int, int]] = []
    total = sum(float(np.hypot(*(np.subtract(b, a)))) for curve in curves for a, b in pairwise(curve))
    along, turn = 0.0, np.linspace(0, 2 * np.pi, n + 1)
    for curve in curves:
        points = np.array(curve)
        tangents = np.gradient(points, axis=0)
        if len(points) > 2 and np.allclose(points[0], points[-1]):  # closed: smooth over the seam too
            tangents[0] = tangents[-1] = points[1] - points[-2]
        out = np.stack([tangents[:, 1], -tangents[:, 0]], 1)
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        steps = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
        base = sum(len(part) for part in vertices)
        for (r, z), (nr, nz), step in zip(points, out, steps, strict=True):
            vertices.append(np.stack([r * np.cos(turn), r * np.sin(turn), np.full(n + 1, z)], 1))
            normals.append(np.stack([nr * np.cos(turn), nr * np.sin(turn), np.full(n + 1, nz)], 1))
            uvs.append(np.stack([1.5 * turn / (2 * np.pi), np.full(n + 1, 1.7 * (along + step) / total)], 1))
        along += steps[-1]
        for i in range(len(points) - 1):
            for j in range(n):
                q = base + i * (n + 1) + j
                for triangle, radius in (
                    ((q, q + 1, q + n + 2), points[i, 0]),
                    ((q, q + n + 2, q + n + 1), points[i + 1, 0]),
                ):
                    if radius > 1e-9:  # a triangle at the axis has no area
                        triangles.append(triangle)
    return Mesh(np.concatenate(vertices), np.concatenate(normals), np.concatenate(uvs), np.array(triangles))


def _prism(outline: Sequence[Point], half: float) -> Mesh:
    """An upright prism over a polygon, given counter-clockwise; its top is seen, its bottom never is."""
    vertices: list[tuple[float, float, float]] = []
    normals: list[tuple[float, float, float]] = []
    uvs: list[Point] = []
    triangles: list[tuple[int, int, int]] = []
    around = 0.0
    for (x0, y0), (x1, y1) in zip(outline, [*outline[1:], outline[0]], strict=True):
        length, q = float(np.hypot(x1 - x0, y1 - y0)), len(vertices)
        for x, y, u in ((x0, y0, around), (x1, y1, around + length / 2.5)):
            for z in (-half, half):
                vertices.append((x, y, z))
                normals.append(((y1 - y0) / length, (x0 - x1) / length, 0.0))
                uvs.append((u, z / 2.5))
        triangles += [(q, q + 2, q + 3), (q, q + 3, q + 1)]
        around += length / 2.5
    q = len(vertices)
    vertices += [(0.0, 0.0, half), *((x, y, half) for x, y in outline)]  # all outlines here are stars about the origin
    normals += [(0.0, 0.0, 1.0)] * (len(outline) + 1)
    uvs += [(0.0, 0.0), *((x / 2.5, y / 2.5) for x, y in outline)]
    triangles += [(q, q + 1 + i, q + 1 + (i + 1) % len(outline)) for i in range(len(outline))]
    return Mesh(np.array(vertices), np.array(normals), np.array(uvs), np.array(triangles))
