"""Following instructions from viewpoint to viewpoint: in generated houses, and Room-to-Room itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from embodied.drawing import Canvas
from embodied.files import read_json
from embodied.spec import POSE, Camera
from envs.house.houses import House, check_split, draw
from envs.house.instructions import instruct
from envs.house.naming import BIG, told_apart
from envs.house.renderer import Renderer, check_camera
from envs.house.routes import legs_of
from envs.house.spec import VERSION
from envs.house.tasks.graph import STEP, GraphEpisode, GraphTask
from envs.house.topdown import floor_plan
from envs.house.viewpoints import ELEVATIONS, HEADINGS, ViewpointGraph, graph_of, panorama, read_graph, to_matterport
from envs.perturbations import Perturbations

LEAST = 5.0
HOUSES, DRAWS = 200, 20
VIEWS = "observation.features"
FIELD = 60.0
"""Degrees across a view."""


@lru_cache(maxsize=64)
def _graph(house: House) -> ViewpointGraph:
    return graph_of(house.spec, house.finder())


class HouseGraph(GraphTask):
    """Instructions through generated houses, acted on from viewpoint to viewpoint.

    The camera `front` looks where the agent does. Those of `views=around` are `view_00` to `view_11`, level, 30 degrees
    apart, counter-clockwise from ahead as candidates are. `panorama()` gives all 36 views of where it stands.

    Args:
        actions, candidates, max_steps, success_distance: see `GraphTask`.
        split, houses: see `HouseTask`.
        height, width: of a picture, pixels; it is 60 degrees wide.
        depth: whether there is depth, too.
        views: `front` or `around`.
        neighbours: see `GraphTask`; with `around` the 12 views show a viewpoint.
        perturb: `instruction`: in words that training never uses.
    """

    name = "vln-graph"

    def __init__(
        self,
        actions: str = "panoramic",
        candidates: int = 16,
        max_steps: int = 30,
        success_distance: float = 3.0,
        split: str = "train",
        houses: int | None = None,
        height: int = 96,
        width: int = 96,
        depth: bool = True,
        views: str = "front",
        neighbours: bool = False,
        perturb: Mapping[str, float] | None = None,
    ) -> None:
        check_split(split, houses)
        check_camera(height, width, FIELD, ("rgb",))
        if views not in ("front", "around"):
            raise ValueError(f"HouseGraph: views is front or around, got '{views}'")
        for kind, level in Perturbations(perturb or {}).levels.items():
            if level and kind != "instruction":
                raise ValueError(f"HouseGraph takes no perturbation '{kind}'; there is instruction")
        self.split, self.houses, self.reworded = split, houses, bool((perturb or {}).get("instruction"))
        self.size, self.outputs = (height, width), ("rgb", "depth") if depth else ("rgb",)
        names = ["front"] if views == "front" else [f"view_{k:02d}" for k in range(HEADINGS)]
        identity = f"house:version={VERSION},fov={FIELD:g},height=1.25"
        cameras = tuple(Camera(name, height, width, identity, depth) for name in names)
        around = 0 if views == "front" else HEADINGS
        super().__init__(actions, candidates, max_steps, success_distance, cameras, neighbours, around)

    def draw(self, seed: int) -> GraphEpisode:
        rng = np.random.default_rng([seed, 7])
        for _ in range(HOUSES):
            house = draw(self.split, self.houses, rng)
            graph = _graph(house)
            for _ in range(DRAWS if not self.counts or graph.joined.sum(1).max() <= self.candidates else 0):
                episode = self._try(house, graph, seed, rng)
                if episode is not None:
                    self.house = house
                    self.renderer = Renderer(house.scene, *self.size, FIELD, self.outputs)
                    return episode
        raise ValueError(f"HouseGraph: no episode of seed {seed} was found in {HOUSES} houses of {self.split}")

    def _try(self, house: House, graph: ViewpointGraph, seed: int, rng: np.random.Generator) -> GraphEpisode | None:
        spec, points = house.spec, graph.positions[:, :2]
        start, target = int(rng.integers(len(points))), int(rng.integers(len(spec.objects)))
        item = spec.objects[target]
        heading = math.pi / 2 - STEP * int(rng.integers(HEADINGS))
        views = house.views(target, house.finder())
        if item.on >= 0 or item.category not in BIG or told_apart(spec, target) is None or not len(views):
            return None
        inside = [k for k in range(len(points)) if house.room_at(points[k]) == item.room]
        if not inside or house.room_at(points[start]) == item.room:
            return None
        away = [float(np.linalg.norm(views - points[k], axis=1).min()) for k in inside]
        goal = inside[int(np.argmin(away))]
        if min(away) > 1.0 or graph.distances[start, goal] < LEAST:
            return None
        path = graph.path(start, goal)
        text = instruct(spec, legs_of(spec, points[path], heading), target, rng, self.reworded)
        reference = {
            "path_id": f"{self.split}-{seed}",
            "scan": graph.scan,
            "heading": to_matterport(heading),
            "path": [graph.names[k] for k in path],
            "instructions": [text],
            "distance": float(graph.distances[start, goal]),
        }
        return GraphEpisode(graph, start, goal, heading, text, f"{self.split}-{seed}_0", reference)

    def extras(self) -> dict[str, Any]:
        position, names = self.graph.positions[self.at], self.embodiment.camera_names
        pitch = self.elevation * STEP if len(names) == 1 else 0.0
        looks = [[*position, self.heading + k * STEP, pitch] for k in range(len(names))]
        seen = self.renderer.render(np.array(looks, np.float32))
        found: dict[str, Any] = {POSE: self.camera()}
        for k, name in enumerate(names):
            found[f"observation.images.{name}"] = seen["rgb"][k]
            if "depth" in seen:
                found[f"observation.depth.{name}"] = seen["depth"][k]
        return found

    def angles(self) -> np.ndarray:
        return np.stack([self.heading + STEP * np.arange(self.views), np.zeros(self.views)], axis=1)

    def paper(self) -> Canvas:
        return floor_plan(self.house).copy()

    def panorama(self) -> dict[str, np.ndarray]:
        """The 36 views of the present viewpoint, see `envs.house.viewpoints.panorama`."""
        return panorama(self.renderer, self.graph.positions[self.at].tolist())


class RoomToRoom(GraphTask):
    """Room-to-Room (Anderson et al. 2018) on its own graphs, with features of the user's or without any picture.

    The episode of seed s is instruction s of the file, counted through and begun again after the last one.

    Args:
        instructions: `R2R_<split>.json`.
        connectivity: the folder of `<scan>_connectivity.json` files.
        features: an HDF5 file with a dataset (36, D) per `<scan>_<viewpoint>`, as DUET's family keeps them; they become
            `observation.features`. None: none.
        actions, candidates, max_steps, success_distance, neighbours: see `GraphTask`; features are of 36 views.

    Raises:
        ValueError: a file is missing or of another format, an instruction's path is not in its graph.
    """

    name = "r2r"

    def __init__(
        self,
        instructions: str,
        connectivity: str,
        features: str | None = None,
        actions: str = "panoramic",
        candidates: int = 16,
        max_steps: int = 30,
        success_distance: float = 3.0,
        neighbours: bool = False,
    ) -> None:
        self.connectivity = Path(connectivity)
        if not self.connectivity.is_dir():
            raise ValueError(f"there is no folder {connectivity} with <scan>_connectivity.json files")
        self.file, self.features = str(instructions), None
        rows = read_json(instructions)
        try:
            self.items = [(row, k) for row in rows for k in range(len(row["instructions"]))]
            assert all(len(row["path"]) > 0 for row, _ in self.items)
        except (KeyError, TypeError, AssertionError):
            raise ValueError(f"{instructions} is no R2R file: rows with scan, path, heading, instructions") from None
        if not self.items:
            raise ValueError(f"{instructions} holds no instructions")
        if features is not None:
            self.features = _open_features(features)
        self._graphs: dict[str, ViewpointGraph] = {}
        more, views = {}, 0
        if self.features is not None:
            self.shape = (HEADINGS * ELEVATIONS, _width(self.features, features))
            more, views = {VIEWS: spaces.Box(-np.inf, np.inf, self.shape, np.float32)}, HEADINGS * ELEVATIONS
        super().__init__(actions, candidates, max_steps, success_distance, (), neighbours, views, more)

    def draw(self, seed: int) -> GraphEpisode:
        row, k = self.items[seed % len(self.items)]
        name = f"{row.get('path_id')}_{k}"
        try:
            scan = str(row["scan"])
            if scan not in self._graphs:
                self._graphs[scan] = read_graph(self.connectivity, scan)
            graph = self._graphs[scan]
            path = [graph.place(viewpoint) for viewpoint in row["path"]]
            if not np.isfinite(graph.distances[path[0], path[-1]]):
                raise ValueError("no way leads from its start to its goal")
            heading = to_matterport(float(row["heading"]))
        except KeyError as error:
            raise ValueError(f"{self.file}, instruction {name}: {error} is missing") from None
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.file}, instruction {name}: {error}") from None
        return GraphEpisode(graph, path[0], path[-1], heading, str(row["instructions"][k]), name, dict(row))

    def extras(self) -> dict[str, Any]:
        if self.features is None:
            return {}
        key = f"{self.graph.scan}_{self.graph.names[self.at]}"
        if key not in self.features:
            raise ValueError(f"the features have no viewpoint {key}")
        found = np.asarray(self.features[key], np.float32)
        if found.shape != self.shape:
            raise ValueError(f"the features of viewpoint {key} are {found.shape}, not {self.shape} as the first ones")
        return {VIEWS: found}

    def angles(self) -> np.ndarray:
        view = np.arange(HEADINGS * ELEVATIONS)
        return np.stack([math.pi / 2 - STEP * (view % HEADINGS), (view // HEADINGS - 1) * STEP], axis=1)


def _open_features(file: str) -> Any:
    try:
        import h5py
    except ImportError:
        raise ValueError("features in HDF5 need h5py: pip install h5py") from None
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise ValueError(f"{file} cannot be read as HDF5: {error}") from None


def _width(features: Any, file: str | None) -> int:
    """D of the first dataset in a file of features."""
    shape: tuple[int, ...] = next((features[name].shape for name in features), ())
    if len(shape) != 2 or shape[0] != HEADINGS * ELEVATIONS:
        raise ValueError(f"{file} should hold a dataset (36, D) per <scan>_<viewpoint>, but its first is {shape}")
    return int(shape[1])
