"""Graphs of viewpoints: where an agent stands in a discrete house, and which way it can go on.

Sampled in a generated house, or read from Matterport3DSimulator's `<scan>_connectivity.json`. Views are those of that
simulator: 36 at each viewpoint, 12 headings 30 degrees apart at elevations of -30, 0 and 30 degrees. Headings are ours,
counter-clockwise from +x; Matterport3DSimulator's are clockwise from +y (`to_matterport`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra

from embodied.building import nearest
from embodied.files import read_json, write_json
from envs.house.pathfinder import PathFinder
from envs.house.renderer import Renderer
from envs.house.spec import HouseSpec

HEADINGS, ELEVATIONS = 12, 3
SUFFIX = "_connectivity.json"
SPACING, LONGEST = 1.5, 3.5
GRID = 0.25
"""Metres: viewpoints of a generated house are no closer together, and no edge is longer."""


@dataclass(frozen=True, eq=False)
class ViewpointGraph:
    """Viewpoints and the ways between them.

    Attributes:
        scan: the house's name.
        names: (n) of the viewpoints.
        positions: (n, 3) metres, z up.
        joined: (n, n) bool, symmetric: whether one steps from one to the other.
    """

    scan: str
    names: tuple[str, ...]
    positions: np.ndarray
    joined: np.ndarray

    @cached_property
    def _ways(self) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = np.nonzero(self.joined)
        lengths = np.linalg.norm(self.positions[rows] - self.positions[columns], axis=1)
        graph = csr_array((lengths, (rows, columns)), shape=self.joined.shape)
        return dijkstra(graph, directed=False, return_predecessors=True)

    @property
    def distances(self) -> np.ndarray:
        """(n, n) metres along the shortest way; infinite where there is none."""
        return self._ways[0]

    @cached_property
    def places(self) -> dict[str, int]:
        """From names to rows."""
        return {name: place for place, name in enumerate(self.names)}

    def place(self, name: str) -> int:
        """The row of a name.

        Raises:
            ValueError: there is no such viewpoint here.
        """
        if name not in self.places:
            raise ValueError(f"viewpoint {name} is not in the graph of {self.scan}")
        return self.places[name]

    def path(self, start: int, end: int) -> list[int]:
        """Rows along the shortest way, both ends included.

        Raises:
            ValueError: there is no way.
        """
        if not np.isfinite(self.distances[start, end]):
            raise ValueError(f"no way leads from {self.names[start]} to {self.names[end]} in {self.scan}")
        back = [end]
        while back[-1] != start:
            back.append(int(self._ways[1][start, back[-1]]))
        return back[::-1]

    def candidates(self, place: int, heading: float = 0.0) -> list[int]:
        """Neighbours, counter-clockwise from a heading."""
        near = np.flatnonzero(self.joined[place])
        away = self.positions[near] - self.positions[place]
        angle = (np.arctan2(away[:, 1], away[:, 0]) - heading + 1e-9) % (2 * math.pi)
        return [int(near[k]) for k in np.argsort(angle, kind="stable")]

    def direction(self, place: int, other: int) -> tuple[float, float, float]:
        """Heading, elevation (radians) and metres from one viewpoint to another."""
        x, y, z = self.positions[other] - self.positions[place]
        flat = math.hypot(x, y)
        return math.atan2(y, x), math.atan2(z, flat), math.sqrt(flat * flat + z * z)

    def save(self, folder: str | Path) -> None:
        """Write `<folder>/<scan>_connectivity.json`, as Matterport3DSimulator and `embodied-score` read it."""
        rows = []
        for place, name in enumerate(self.names):
            pose = np.eye(4)
            pose[:3, 3] = self.positions[place]
            free = self.joined[place].tolist()
            rows.append({"image_id": name, "pose": pose.ravel().tolist(), "included": True, "visible": free,
                         "unobstructed": free, "height": float(self.positions[place, 2])})  # fmt: skip
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(folder) / f"{self.scan}{SUFFIX}", rows)


def read_graph(folder: str | Path, scan: str) -> ViewpointGraph:
    """A scan of a folder of connectivity files; viewpoints that are not included are left out.

    Raises:
        ValueError: no such folder or scan, or a file of another format; the file is named.
    """
    folder = Path(folder)
    if folder.suffix in (".pkl", ".pickle", ".p"):
        raise ValueError(f"{folder} is a pickle, which can run code: name the folder of <scan>{SUFFIX} files")
    file = folder / f"{scan}{SUFFIX}"
    if "/" in scan or not file.is_file():
        there = [path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}")]
        raise ValueError(
            f"there is no {file}{nearest(scan, there[:200]) if there else ', nor any graph in that folder'}"
        )
    rows: Any = read_json(file)
    try:
        kept = [place for place, row in enumerate(rows) if row["included"]]
        poses = np.array([rows[place]["pose"] for place in kept], float).reshape(len(kept), 16)
        free = np.array([rows[place]["unobstructed"] for place in kept], bool).reshape(len(kept), len(rows))[:, kept]
        names = tuple(str(rows[place]["image_id"]) for place in kept)
    except (KeyError, TypeError, ValueError, IndexError):
        raise ValueError(f"{file} is no connectivity file: rows with image_id, pose, included, unobstructed") from None
    if not names or len(set(names)) < len(names) or not np.isfinite(poses).all():
        raise ValueError(f"{file} has no viewpoints, two of one name, or a pose that is not finite")
    joined = free | free.T
    np.fill_diagonal(joined, False)
    return ViewpointGraph(scan, names, poses[:, [3, 7, 11]], joined)


def graph_of(house: HouseSpec, finder: PathFinder, camera_height: float = 1.25) -> ViewpointGraph:
    """A graph for a generated house: in every door, then wherever nothing is within 1.5 m, as central as possible.

    Edges join viewpoints up to 3.5 m apart between which one can walk straight on. Where furniture leaves a part cut
    off, viewpoints along the shortest way to it join it.
    """
    x0, y0, x1, y1 = house.bounds
    grid = np.stack(np.meshgrid(np.arange(x0, x1, GRID), np.arange(y0, y1, GRID)), -1).reshape(-1, 2)
    grid = grid[finder.is_navigable(grid)]
    clear = np.array([finder.clearance(point) for point in grid])
    points = np.array([finder.snap(np.array(door.centre)) for door in house.doors]).reshape(-1, 2)
    for point in grid[np.argsort(-clear.round(2), kind="stable")]:
        if not len(points) or np.hypot(*(points - point).T).min() >= SPACING:
            points = np.concatenate([points, point[None]])
    while True:
        ways = finder.geodesics(points, points)
        straight = np.linalg.norm(points[:, None] - points[None], axis=-1)
        joined = (ways <= straight + 1e-6) & (straight <= LONGEST)
        np.fill_diagonal(joined, False)
        parts, part = connected_components(csr_array(joined), directed=False)
        if parts == 1:
            break
        own = np.flatnonzero(part == np.bincount(part).argmin())
        others = np.flatnonzero(part != part[own[0]])
        near = ways[np.ix_(own, others)]
        a, b = np.unravel_index(int(near.argmin()), near.shape)
        points = np.concatenate([points, bridge(finder.path(points[own[a]], points[others[b]]))])
    names = tuple(f"h{house.seed}v{place:03d}" for place in range(len(points)))
    positions = np.column_stack([points, np.full(len(points), camera_height)])
    return ViewpointGraph(f"house-{house.seed}", names, positions, joined | joined.T)


def bridge(path: np.ndarray) -> np.ndarray:
    """(K, 2) points between the ends of a way, at its corners and at most `LONGEST` metres apart."""
    found = []
    for a, b in pairwise(path):
        pieces = math.ceil(math.dist(a, b) / (LONGEST - 0.1)) or 1
        found += [a + (b - a) * k / pieces for k in range(1, pieces + 1)]
    return np.array(found[:-1]).reshape(-1, 2)


def panorama(renderer: Renderer, position: Sequence[float]) -> dict[str, np.ndarray]:
    """The 36 views from a viewpoint, (36, ...) by output: view 12 * row + column looks 30 * (row - 1) degrees up and
    30 * column degrees clockwise from +y, which is Matterport3DSimulator's order."""
    cameras = [
        [*position, math.pi / 2 - math.radians(30 * column), math.radians(30 * (row - 1))]
        for row in range(ELEVATIONS)
        for column in range(HEADINGS)
    ]
    return renderer.render(np.array(cameras, np.float32))


def to_matterport(heading: float) -> float:
    """A heading as Matterport3DSimulator writes it, in [0, 2 pi); its own inverse up to whole turns."""
    return (math.pi / 2 - heading) % (2 * math.pi)
