"""What one step costs a map: against the same update cell by cell, and against how long the episode already is.

    python -m benchmarks.map_update [--side 128] [--steps 400] [--repeats 5] [--width 64]

First the occupancy grid: one update of the whole picture at once, and the same update written as a loop over pixels and
cells, alternating on the same views in one process; their results are compared. Printed: CPU milliseconds of each
(median and quartiles) and the ratio. Then every map on one walk around a room (the graph: along a corridor, a new
viewpoint every step): CPU milliseconds per update in the first and the last quarter of an episode (the cost is flat
where their ratio is about 1), milliseconds to read the memory as tokens at the end, and the memory of one episode.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maps.base import MapMemory, Text
from maps.geometry import camera_pose, focal_length, rays
from maps.gridmm import GridMM
from maps.objects import ObjectMap
from maps.occupancy import OccupancyMap
from maps.open_vocabulary import OpenVocabularyMap
from maps.smnet import SMNet
from maps.topological import TopologicalMap
from maps.trans4map import Trans4Map
from maps.value import ValueMap
from maps.voxels import VoxelMap
from maps.waypoints import WaypointMap

FEATURES = 64
"""Width of the image features, a picture of an eighth of the pixels per side."""

HOUSE = (8.13, 6.07, 2.5)
"""Metres along x, y and z of the room that is walked through; its walls lie inside cells, not between them."""


class CellByCell:
    """The update of `OccupancyMap`, of one episode, a pixel and a cell at a time: what it is compared with.

    Args:
        grid: the map whose settings it takes.
    """

    def __init__(self, grid: OccupancyMap) -> None:
        self.map = grid
        self.points: dict[tuple[int, int], int] = {}
        self.looked: set[tuple[int, int]] = set()
        self.labels: dict[tuple[int, int], list[int]] = {}
        self.origin: tuple[float, float, float] | None = None

    @property
    def occupied(self) -> set[tuple[int, int]]:
        return {cell for cell, count in self.points.items() if count >= self.map.hits}

    @property
    def free(self) -> set[tuple[int, int]]:
        return self.looked - self.occupied

    def update(self, depth: list[list[float]], pose: list[list[float]], labels: list[list[int]] | None = None) -> None:
        """One step: depth and labels (H, W), pose (4, 4)."""
        m, grid = self.map, self.map.grid
        height, width = len(depth), len(depth[0])
        focal = focal_length(width, m.field_of_view)
        if self.origin is None:
            self.origin = (pose[0][3], pose[1][3], pose[2][3] - m.eye)
        floor = pose[2][3] - m.eye
        reach = []
        for c in range(width):
            nearest, farthest = math.inf, 0.0
            for r in range(height):
                d = depth[r][c]
                if d <= m.near:
                    continue
                farthest = max(farthest, d)
                ray = (d * (c - (width - 1) / 2) / focal, d * (r - (height - 1) / 2) / focal, d)
                x, y, z = (sum(pose[i][j] * ray[j] for j in range(3)) + pose[i][3] for i in range(3))
                x, y, z = x - self.origin[0], y - self.origin[1], z - floor
                if z >= m.ceiling or z <= m.low:
                    continue
                nearest = min(nearest, d)
                cell = (
                    math.floor(x / grid.resolution + grid.size / 2),
                    math.floor(y / grid.resolution + grid.size / 2),
                )
                if d >= m.far or not (0 <= cell[0] < grid.size and 0 <= cell[1] < grid.size):
                    continue
                self.points[cell] = self.points.get(cell, 0) + 1
                if labels is not None:
                    self.labels.setdefault(cell, [0] * m.classes)[labels[r][c]] += 1
            reach.append(farthest if math.isinf(nearest) else nearest)
        self._look(pose, reach, focal)

    def _look(self, pose: list[list[float]], reach: list[float], focal: float) -> None:
        m, grid, width = self.map, self.map.grid, len(reach)
        assert self.origin is not None
        heading = math.atan2(pose[0][0], -pose[1][0])
        x, y = pose[0][3] - self.origin[0], pose[1][3] - self.origin[1]
        i, j = (math.floor(v / grid.resolution + grid.size / 2) for v in (x, y))
        radius = math.ceil(m.far / grid.resolution)
        for a in range(max(0, i - radius), min(grid.size, i + radius + 1)):
            for b in range(max(0, j - radius), min(grid.size, j + radius + 1)):
                dx = (a + 0.5 - grid.size / 2) * grid.resolution - x
                dy = (b + 0.5 - grid.size / 2) * grid.resolution - y
                ahead = dx * math.cos(heading) + dy * math.sin(heading)
                left = dy * math.cos(heading) - dx * math.sin(heading)
                if ahead <= 0 or math.hypot(ahead, left) > m.far or (a - i) ** 2 + (b - j) ** 2 > radius**2:
                    continue
                column = round((width - 1) / 2 - left / ahead * focal)
                if 0 <= column < width and ahead <= reach[column]:
                    self.looked.add((a, b))


def walk(steps: int, side: int) -> tuple[Tensor, Tensor]:
    """Depth (T, H, W) and poses (T, 4, 4) of a walk along an ellipse in an empty room, looking where it goes."""
    turn = torch.arange(steps) / steps * 4 * math.pi
    x, y = HOUSE[0] / 2 + 2.5 * turn.cos(), HOUSE[1] / 2 + 1.8 * turn.sin()
    pose = camera_pose(x, y, torch.full_like(x, 1.25), torch.atan2(1.8 * turn.cos(), -2.5 * turn.sin()))
    ray = torch.einsum("hwj,tij->thwi", rays(side, side, 90), pose[:, :3, :3])
    low, high = torch.zeros(3), torch.tensor(HOUSE)
    place = pose[:, None, None, :3, 3]
    depth = torch.where(ray > 0, (high - place) / ray.clamp(min=1e-6), (low - place) / ray.clamp(max=-1e-6)).amin(-1)
    return depth, pose


def seconds(work: Callable[..., object], *arguments: object) -> float:
    """CPU seconds of one call, in this one thread: other programs on the machine don't count."""
    start = time.process_time()
    work(*arguments)
    return time.process_time() - start


def quartiles(taken: Sequence[float]) -> str:
    low, middle, high = np.percentile(np.array(taken) * 1e3, [25, 50, 75])
    return f"{middle:9.2f} ms ({low:.2f} to {high:.2f})"


def against_the_loop(side: int, repeats: int) -> None:
    """Both ways over the same views, in turn."""
    grid = OccupancyMap(16)
    depth, pose = walk(repeats, side)
    plain = [(d.tolist(), p.tolist()) for d, p in zip(depth, pose, strict=True)]
    memory, loop = grid.begin(1), CellByCell(grid)
    at_once, in_turn = [], []
    for step in range(repeats):
        observation = {"observation.depth.front": depth[step, None], "observation.pose": pose[step, None]}
        at_once.append(seconds(grid.update, memory, observation))
        in_turn.append(seconds(loop.update, *plain[step]))
    for name, mine, other in (
        ("occupied", grid.occupied(memory)[0], loop.occupied),
        ("free", grid.free(memory)[0], loop.free),
    ):
        cells = {tuple(cell) for cell in mine.nonzero().tolist()}
        apart = len(cells ^ other) / max(len(cells), 1)  # single and double precision round a few cells apart
        print(f"{name:9} {len(cells):6} cells, of which the loop finds {1 - apart:.2%} alike")
        assert apart < 0.01, f"the loop finds other {name} cells"
    print(f"vectorised   {quartiles(at_once)}\ncell by cell {quartiles(in_turn)}")
    print(f"ratio        {np.median(np.array(in_turn) / np.array(at_once)):9.1f}")


def every_map(width: int, steps: int) -> dict[str, MapMemory]:
    """The maps that read views, at comparable sizes, in a house of 24 x 24 m; the graph has its own observations."""
    around: dict[str, Any] = {"size": 240, "resolution": 0.1}
    return {
        "occupancy": OccupancyMap(width, surroundings=around),
        "occupancy, 41": OccupancyMap(width, classes=41, surroundings=around),
        "smnet": SMNet(width, FEATURES, 64, 0, surroundings=around),
        "trans4map": Trans4Map(width, FEATURES, 64, 0, horizon=64, surroundings=around),
        "gridmm": GridMM(width, FEATURES),
        "voxels": VoxelMap(width, FEATURES, surroundings=around),
        "objects": ObjectMap(width, surroundings=around),
        "open_vocabulary": OpenVocabularyMap(width, FEATURES, surroundings=around),
        "value": ValueMap(width, surroundings=around),
        "waypoints": WaypointMap(width, FEATURES),
        "topological": TopologicalMap(width, FEATURES, capacity=steps + steps // 50 + 4),
    }


def viewpoint(step: int, draw: torch.Generator) -> dict[str, Tensor]:
    """A corridor of viewpoints, each with the ones before and after it and with two rooms that are never entered."""
    near = [step - 1, step + 1, 10_000 + step // 100, 20_000 + step // 100]
    places = [(2.0 * (n if n < 10_000 else step // 100 * 100), float(n >= 10_000) * 2, 0.0) for n in near]
    return {
        "observation.node": torch.tensor([step]),
        "observation.neighbours": torch.tensor([near]),
        "observation.neighbours.places": torch.tensor([places]),
        "observation.neighbours.views": torch.tensor([[0, 1, 2, 3]]),
        "observation.features": torch.randn(1, 36, FEATURES, generator=draw),
        "observation.angles": torch.zeros(1, 36, 2),
        "observation.pose": camera_pose(*(torch.tensor([v]) for v in (2.0 * step, 0.0, 1.25, 0.0))),
    }


def against_length(side: int, steps: int, width: int) -> None:
    depth, pose = walk(steps, side)
    draw = torch.Generator().manual_seed(0)
    text = Text(torch.randn(1, 12, width, generator=draw), torch.ones(1, 12, dtype=torch.bool))
    labels = torch.randint(41, (1, side, side), generator=draw)
    seen = {
        "observation.semantic.front": labels,
        "observation.instance.front": labels,
        "observation.images.front": torch.randint(256, (1, side, side, 3), generator=draw, dtype=torch.uint8),
        "observation.features.front": torch.randn(1, FEATURES, side // 8, side // 8, generator=draw),
        "observation.value": torch.rand(1, 1, generator=draw),
    }
    print(f"{'map':16} {'first quarter':>14} {'last quarter':>13} {'ratio':>6} {'read':>9} {'memory':>9}")
    for name, map_ in every_map(width, steps).items():
        map_.eval()
        memory, taken = map_.begin(1), []
        for step in range(steps):
            observation = seen | {"observation.depth.front": depth[step, None], "observation.pose": pose[step, None]}
            if isinstance(map_, TopologicalMap):
                observation = viewpoint(step, draw)
            with torch.no_grad():
                taken.append(seconds(map_.update, memory, observation))
        with torch.no_grad():
            map_(memory, text)
            reading = min(seconds(map_, memory, text) for _ in range(3))
        quarter = max(steps // 4, 1)
        first, last = np.median(taken[:quarter]) * 1e3, np.median(taken[-quarter:]) * 1e3
        print(
            f"{name:16} {first:11.2f} ms {last:10.2f} ms {last / first:6.2f} {reading * 1e3:6.1f} ms "
            f"{memory.bytes / 2**20:6.1f} MB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=128, help="pixels per side of the pictures")
    parser.add_argument("--steps", type=int, default=400, help="of the episode")
    parser.add_argument("--repeats", type=int, default=5, help="views that the loop reads")
    parser.add_argument("--width", type=int, default=64, help="of a token")
    options = parser.parse_args()
    torch.set_num_threads(1)
    against_the_loop(options.side, options.repeats)
    against_length(options.side, options.steps, options.width)


if __name__ == "__main__":
    main()
