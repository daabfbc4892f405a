"""Where an agent can be and how far it is: exact shortest paths, snapping, sliding, random points, top-down maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, dijkstra

from envs.house.plane import NORMALS, SKIN, corners, depths, octagons, sight, slide, through
from envs.house.scene import build_scene
from envs.house.spec import HouseSpec


@dataclass(frozen=True)
class TopDownMap:
    """A plan as images, north (high y) up, with `resolution` metres per pixel.

    `free` (H, W) bool: an agent's centre can be there. `semantic` (H, W) uint8: the category seen from above with the
    ceiling off, 0 outside. `room` (H, W) int16: the room, -1 outside.
    """

    free: np.ndarray
    semantic: np.ndarray
    room: np.ndarray
    resolution: float
    origin: tuple[float, float]
    """x of the left edge and y of the top edge."""

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) row and column (integers) of points x, y in metres."""
        points = np.asarray(points, np.float64)
        rows = np.floor((self.origin[1] - points[..., 1]) / self.resolution)
        columns = np.floor((points[..., 0] - self.origin[0]) / self.resolution)
        return np.stack([rows, columns], -1).astype(np.int64)

    def to_metres(self, pixels: np.ndarray) -> np.ndarray:
        """(..., 2) x, y of the middles of pixels (row, column)."""
        pixels = np.asarray(pixels, np.float64)
        x = self.origin[0] + (pixels[..., 1] + 0.5) * self.resolution
        y = self.origin[1] - (pixels[..., 0] + 0.5) * self.resolution
        return np.stack([x, y], -1)


class PathFinder:
    """Navigation of one house for an agent of one size. Points are x, y in metres, float64.

    Geodesics are exact on the plane whose obstacles are grown by the octagon around the agent's disc (see
    `envs.house.plane`): a shortest path there bends only at corners of obstacles, so a visibility graph over these has
    it. Only the island that holds the doors counts as navigable.

    Args:
        house: the house.
        radius: of the agent in metres; the house's own `agent_radius` when left out.
        height: of the agent in metres: what begins above it is no obstacle.

    Raises:
        ValueError: a radius or height no agent has, or one too wide for the house's doors.
    """

    def __init__(self, house: HouseSpec, radius: float | None = None, height: float = 1.5) -> None:
        self.house = house
        self.radius = house.agent_radius if radius is None else float(radius)
        if not 0 < self.radius < 2 or not height > 0:
            raise ValueError(f"an agent of radius {self.radius} m and height {height} m should have both above 0")
        self.scene = build_scene(house)
        self.planes = octagons(self.scene, self.radius, height)
        self.sides = corners(self.planes)
        points = self.sides.reshape(-1, 2)
        x, y = points.T
        rooms = [room.bounds for room in house.rooms]
        indoors = np.any([(x > a) & (x < c) & (y > b) & (y < d) for a, b, c, d in rooms], 0)
        points = points[indoors & (depths(points, self.planes, NORMALS) <= SKIN)]
        self.corners = np.ascontiguousarray(points)
        seen = self._sight(self.corners, self.corners)
        np.fill_diagonal(seen, 0)
        graph = csr_matrix(np.where(np.isfinite(seen), seen, 0))
        self.lengths, self._before = dijkstra(graph, directed=False, return_predecessors=True)
        self._island = connected_components(graph, directed=False)[1]
        middles = np.array([d.centre for d in house.doors] or [room_middle(r) for r in rooms])
        first = np.isfinite(self._sight(middles, self.corners)) if len(self.corners) else np.zeros((1, 0), bool)
        votes = self._island[np.nonzero(first)[1]]
        if len(votes) == 0 or (depths(middles, self.planes, NORMALS) > SKIN).all():
            raise ValueError(f"an agent of radius {self.radius} m fits through no door of house {house.seed}")
        self._main = int(np.bincount(votes).argmax())
        self._crossings: np.ndarray | None = None

    def _sight(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return sight(a, b, self.planes, NORMALS, SKIN)

    def _to_corners(self, points: np.ndarray) -> np.ndarray:
        """(P, V) straight distances to the corners of the main island that are seen, else infinity."""
        lengths = self._sight(points, self.corners)
        lengths[depths(points, self.planes, NORMALS) > SKIN] = np.inf
        lengths[:, self._island != self._main] = np.inf
        return lengths

    def is_navigable(self, points: np.ndarray) -> np.ndarray:
        """Whether an agent can stand at each of (..., 2) points and walk from there to every room."""
        flat = as_points(points)
        free = depths(flat, self.planes, NORMALS) <= SKIN
        free[free] = np.isfinite(self._to_corners(flat[free])).any(1)
        return free.reshape(np.shape(points)[:-1])

    def geodesics(self, starts: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """(S, G) lengths of the shortest paths from (S, 2) to (G, 2); infinity where there is none."""
        starts, goals = as_points(starts), as_points(goals)
        straight = self._sight(starts, goals)
        a, b = self._to_corners(starts), self._to_corners(goals)
        best = np.minimum(straight, through(a, self.lengths, b))
        best[~np.isfinite(a).any(1)] = np.inf
        best[:, ~np.isfinite(b).any(1)] = np.inf
        return best

    def geodesic(self, start: np.ndarray, goal: np.ndarray) -> float:
        """Metres from a point to another, or to the nearest of several (G, 2); infinity where there is no way."""
        return float(self.geodesics(start, goal).min())

    def distances_to(self, goals: np.ndarray) -> DistanceField:
        """A function of points for goals that stay: one query costs what a look at all corners costs."""
        return DistanceField(self, as_points(goals))

    def path(self, start: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """(K, 2) the points of the shortest path, start and goal included.

        Raises:
            ValueError: there is none.
        """
        a, b = as_points(start), as_points(goal)
        from_start, to_goal = self._to_corners(a)[0], self._to_corners(b)[0]
        if not np.isfinite(from_start).any() or not np.isfinite(to_goal).any():
            where = "start" if not np.isfinite(from_start).any() else "goal"
            point = (a if where == "start" else b)[0]
            raise ValueError(
                f"the {where} ({point[0]:.3f}, {point[1]:.3f}) is not navigable in house {self.house.seed}"
            )
        if np.isfinite(self._sight(a, b)[0, 0]):
            return np.concatenate([a, b])
        total = from_start[:, None] + self.lengths + to_goal[None]
        first, here = np.unravel_index(int(np.argmin(total)), total.shape)
        chain = [int(here)]
        while chain[-1] != first:
            chain.append(int(self._before[first, chain[-1]]))
        return np.concatenate([a, self.corners[chain[::-1]], b])

    def step(self, start: np.ndarray, end: np.ndarray, sliding: bool = True) -> tuple[np.ndarray, bool]:
        """Walk straight from a navigable point towards another.

        Returns:
            Where the walk ends, and whether an obstacle was met. With `sliding` the rest of the motion goes along the
            obstacle's side, as Habitat's `try_step` does; without, it stops there.

        Raises:
            ValueError: `start` is inside an obstacle.
        """
        a, b = as_points(start)[0], as_points(end)[0]
        if depths(a[None], self.planes, NORMALS)[0] > SKIN:
            raise ValueError(f"a step starts at ({a[0]:.3f}, {a[1]:.3f}), which is inside an obstacle")
        x, y, hit = slide(a[0], a[1], b[0], b[1], self.planes, NORMALS, SKIN, sliding)
        return np.array([x, y]), bool(hit)

    def clearance(self, point: np.ndarray) -> float:
        """Metres from a point to the nearest place where the agent would touch something; 0 inside obstacles."""
        points = as_points(point)
        if depths(points, self.planes, NORMALS)[0] > 0:
            return 0.0
        nearest = self._on_sides(points[0])
        return float(np.hypot(*(nearest - points[0]).T).min())

    def _on_sides(self, point: np.ndarray) -> np.ndarray:
        """The nearest point on each side of each obstacle."""
        a = self.sides.reshape(-1, 2)
        b = np.roll(self.sides, -1, 1).reshape(-1, 2)
        along = b - a
        share = ((point - a) * along).sum(1) / np.maximum((along**2).sum(1), 1e-18)
        return a + np.clip(share, 0, 1)[:, None] * along

    def snap(self, point: np.ndarray) -> np.ndarray:
        """The nearest navigable point."""
        points = as_points(point)
        if self.is_navigable(points)[0]:
            return points[0]
        if self._crossings is None:
            self._crossings = crossings(self.sides)
        candidates = np.concatenate([self._on_sides(points[0]), self._crossings, self.corners])
        order = np.argsort(np.hypot(*(candidates - points[0]).T), kind="stable")
        for some in np.array_split(order, max(1, len(order) // 64)):
            good = self.is_navigable(candidates[some])
            if good.any():
                return np.array(candidates[some[int(np.argmax(good))]])
        raise AssertionError("a house without a navigable corner was refused when it was loaded")

    def random_point(self, rng: np.random.Generator, room: int | None = None) -> np.ndarray:
        """A navigable point, uniform over the house or over one of its rooms.

        Raises:
            ValueError: none was found in 10 000 draws.
        """
        x0, y0, x1, y1 = self.house.bounds if room is None else self.house.rooms[room].inside
        for _ in range(10_000 // 50):
            points = rng.uniform((x0, y0), (x1, y1), (50, 2))
            good = np.flatnonzero(self.is_navigable(points))
            if len(good):
                return np.array(points[good[0]])
        raise ValueError(
            f"house {self.house.seed} has no navigable point in {'it' if room is None else f'room {room}'}"
        )

    def top_down(self, resolution: float = 0.05) -> TopDownMap:
        """The plan as images; what hangs above 2 m is left out.

        Raises:
            ValueError: `resolution` is not above 0.
        """
        if not resolution > 0:
            raise ValueError(f"a map's resolution of {resolution} m per pixel should be above 0")
        x0, y0, x1, y1 = self.house.bounds
        shape = (int(np.ceil((y1 - y0) / resolution)), int(np.ceil((x1 - x0) / resolution)))
        empty = np.zeros(shape, bool)
        plan = TopDownMap(empty, empty.astype(np.uint8), empty.astype(np.int16), resolution, (x0, y1))
        points = plan.to_metres(np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1))
        x, y = points[..., 0], points[..., 1]
        room = np.full(shape, -1, np.int16)
        for place, item in enumerate(self.house.rooms):
            a, b, c, d = item.bounds
            room[(x >= a) & (x < c) & (y >= b) & (y < d)] = place
        semantic = np.where(room >= 0, 2, 0).astype(np.uint8)
        bounds = self.scene.bounds
        for k in np.argsort(bounds[:, 5], kind="stable"):
            a, b, low, c, d, _ = bounds[k]
            if low < 2.0:
                inside = (x >= a) & (x < c) & (y >= b) & (y < d)
                if self.scene.round[k]:
                    inside &= np.hypot(x - (a + c) / 2, y - (b + d) / 2) <= (c - a) / 2
                semantic[inside] = self.scene.semantic[k]
        free = (depths(points.reshape(-1, 2), self.planes, NORMALS) <= SKIN).reshape(shape) & (room >= 0)
        free[free] = self.is_navigable(points[free])
        return TopDownMap(free, semantic, room, resolution, (x0, y1))


class DistanceField:
    """Geodesic distance to the nearest of some goals, as a function of points."""

    def __init__(self, finder: PathFinder, goals: np.ndarray) -> None:
        self.finder, self.goals = finder, goals
        last = finder._to_corners(goals)
        self.to_goal = (last.min(0)[:, None] + finder.lengths).min(0)
        self.reachable = goals[np.isfinite(last).any(1)]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """(P,) metres from (P, 2) points; infinity where there is no way."""
        points = as_points(points)
        lengths = self.finder._to_corners(points)
        best = (lengths + self.to_goal).min(1)
        if len(self.reachable):
            best = np.minimum(best, self.finder._sight(points, self.reachable).min(1))
        best[~np.isfinite(lengths).any(1)] = np.inf
        return best


def as_points(points: np.ndarray) -> np.ndarray:
    """(P, 2) float64.

    Raises:
        ValueError: not x, y pairs of finite numbers.
    """
    points = np.ascontiguousarray(points, np.float64)
    if points.ndim == 0 or points.shape[-1] != 2 or not np.isfinite(points).all():
        raise ValueError(f"points of shape {points.shape} should be finite x, y pairs")
    return points.reshape(-1, 2)


def room_middle(bounds: tuple[float, float, float, float]) -> tuple[float, float]:
    return (bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2


def crossings(sides: np.ndarray) -> np.ndarray:
    """(K, 2) where the sides of different octagons cross: the inner corners of free space."""
    found = []
    a, b = sides.reshape(-1, 2), np.roll(sides, -1, 1).reshape(-1, 2)
    low, high = np.minimum(a, b) - 1e-9, np.maximum(a, b) + 1e-9
    for i in range(len(a)):
        near = np.flatnonzero((low[i] <= high).all(1) & (low <= high[i]).all(1))
        near = near[near > i]
        d, e = b[i] - a[i], b[near] - a[near]
        cross = d[0] * e[:, 1] - d[1] * e[:, 0]
        good = np.abs(cross) > 1e-12
        near, e, cross = near[good], e[good], cross[good]
        w = a[near] - a[i]
        t, s = (w[:, 0] * e[:, 1] - w[:, 1] * e[:, 0]) / cross, (w[:, 0] * d[1] - w[:, 1] * d[0]) / cross
        inside = (t >= -1e-9) & (t <= 1 + 1e-9) & (s >= -1e-9) & (s <= 1 + 1e-9)
        found.append(a[i] + t[inside, None] * d)
    return np.concatenate(found) if found else np.zeros((0, 2))
