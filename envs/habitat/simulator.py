"""An agent in a scene of habitat-sim, with the interface of `envs.house.simulator`.

The simulator runs in this process, or in another interpreter behind `envs.remote`. Points have a height here, (x, y, z)
of the floor, because scenes have several: wherever the house takes (..., 2), this takes (..., 3), or (..., 2) for the
floor that the agent stands on, and gives back (..., 3).
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from envs.habitat import engine as engine_module
from envs.house.categories import MP3D_ID
from envs.house.pathfinder import TopDownMap
from envs.house.simulator import LOOKS, MOST_PITCH, AgentState, Body

HOW = (
    "habitat-sim is not installed here and not on PyPI: conda create -n habitat -c conda-forge -c aihabitat python=3.9 "
    "habitat-sim headless msgpack-python, then python=<that environment's python>, and it runs there"
)
REACH = 1e-3
"""Metres from a point to the navigation mesh that still count as standing on it."""


class Engine(Protocol):
    """Calls methods of `envs.habitat.engine.Engine`, wherever it is; `open` until it is closed or has died."""

    @property
    def open(self) -> bool: ...

    def call(self, name: str, *arguments: Any, **options: Any) -> Any: ...

    def close(self) -> None: ...


class Here:
    """An engine in this process."""

    open = True

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        return getattr(self.engine, name)(*arguments, **options)

    def close(self) -> None:
        self.engine.close()
        self.open = False


def open_engine(
    scene: str | Path,
    body: Body,
    python: str | None = None,
    address: str | None = None,
    token_file: str | None = None,
    device: int = -1,
    dataset: str | None = None,
    navmesh: str = "file",
    cell: float = 0.05,
) -> Engine:
    """habitat-sim with a scene.

    Args:
        scene: its file.
        body: what the agent is.
        python: the interpreter that has habitat-sim; None for this one.
        address, token_file: `host:port` of a server of an `Engine` that runs already, see `envs.remote`.
        device, dataset, navmesh, cell: see `envs.habitat.engine.Engine`.

    Raises:
        ValueError: habitat-sim is not there, and how to get it; no such scene; see `Engine` and `Link`.
    """
    outputs = ["instance" if name == "semantic" else name for name in body.outputs]
    arguments = {
        "scene": str(scene),
        "height": body.height,
        "width": body.width,
        "field_of_view": body.field_of_view,
        "outputs": list(dict.fromkeys(outputs)),
        "forward": body.forward,
        "turn": body.turn,
        "sliding": body.sliding,
        "radius": 0.1 if body.radius is None else body.radius,
        "tall": body.tall,
        "device": device,
        "dataset": dataset,
        "navmesh": navmesh,
        "cell": cell,
    }
    if address is not None or python is not None:
        from envs.remote.client import Link, RemoteError
        from envs.remote.server import read_token

        try:
            if address is not None:
                link = Link.connected(address, read_token(token_file))
                link.call("load", str(scene))
                return link
            return Link.started(f"{Path(engine_module.__file__).resolve()}:Engine", arguments, python)
        except RemoteError as error:
            if "No module named 'habitat_sim'" in str(error):
                raise ValueError(f"{python or address} has no habitat-sim; {HOW}") from None
            raise
    if importlib.util.find_spec("habitat_sim") is None:
        raise ValueError(HOW)
    return Here(engine_module.Engine(**arguments))


@dataclass(frozen=True)
class FloorState(AgentState):
    """Where an agent is; `z` is the height of the floor it stands on, metres."""

    z: float = 0.0

    @property
    def position(self) -> np.ndarray:
        """(3,) metres."""
        return np.array([self.x, self.y, self.z])

    @property
    def row(self) -> np.ndarray:
        """(5,) x, y, z, heading, pitch."""
        return np.array([self.x, self.y, self.z, self.heading, self.pitch])


class HabitatSimulator:
    """One agent in one scene, in the manner of `envs.house.simulator.Simulator`.

    Args:
        engine: what `open_engine` gave.
        body: what the agent is, the same as the engine was opened with.

    Attributes:
        finder: its `HabitatPathFinder`.
        state: where the agent is.
        collided: whether its last step was blocked.
    """

    def __init__(self, engine: Engine, body: Body) -> None:
        self.engine, self.body = engine, body
        self.finder = HabitatPathFinder(engine)
        x, y, z = self.finder.random_point(np.random.default_rng(0))
        self.state, self.collided = FloorState(x, y, z=z), False
        self.finder.floor = z
        self._categories: np.ndarray | None = None

    def load(self, scene: str | Path) -> None:
        """Go to another scene.

        Raises:
            ValueError: there is none, or habitat-sim cannot load it.
        """
        self.engine.call("load", str(scene))
        self._categories = None

    def place(self, state: FloorState) -> None:
        """Put the agent somewhere.

        Raises:
            ValueError: it cannot stand there.
        """
        if not self.finder.is_navigable(state.position[None])[0]:
            raise ValueError(
                f"({state.x:.3f}, {state.y:.3f}, {state.z:.3f}) is off the navigation mesh: snap gives the nearest "
                "point that is on it"
            )
        self.state, self.collided = state, False
        self.finder.floor = state.z

    def step(self, action: str) -> bool:
        """Do one of `Body.moves`; whether it was blocked."""
        self.state, self.collided = self.after(self.state, action)
        self.finder.floor = self.state.z
        return self.collided

    def after(self, state: FloorState, action: str) -> tuple[FloorState, bool]:
        """Where an action leads from somewhere, and whether it is blocked; the agent itself stays.

        Raises:
            ValueError: no such action.
        """
        if action not in self.body.moves:
            raise ValueError(f"an agent has no action '{action}'; there is {', '.join(self.body.moves)}")
        if action in LOOKS:
            pitch = state.pitch + math.radians(self.body.tilt) * (1 if action == "look_up" else -1)
            pitch = min(MOST_PITCH, max(-MOST_PITCH, pitch))
            return FloorState(state.x, state.y, state.heading, pitch, state.z), False
        (x, y, z, heading, pitch), collided = self.engine.call("act", state.row, action)
        return FloorState(float(x), float(y), float(heading), float(pitch), float(z)), bool(collided)

    def observe(self) -> dict[str, np.ndarray]:
        """What the agent's camera gives, by output, without the batch's axis."""
        return {name: values[0] for name, values in self.observe_at([self.state]).items()}

    def observe_at(self, states: Sequence[FloorState]) -> dict[str, np.ndarray]:
        """Pictures from B states, as `envs.house.renderer.Renderer.render` gives them."""
        rows = np.stack([state.row for state in states])
        seen: dict[str, np.ndarray] = self.engine.call("observe_at", rows, self.body.camera_height)
        if "semantic" in self.body.outputs:
            seen["semantic"] = self.categories[np.minimum(seen["instance"], len(self.categories) - 1)]
        return {name: seen[name] for name in self.body.outputs}

    @property
    def categories(self) -> np.ndarray:
        """(I + 2,) uint8: Matterport3D's category id of each instance; 0 for those of another name."""
        if self._categories is None:
            named = self.engine.call("objects")
            table = np.zeros(max((number for number, _ in named), default=0) + 2, np.uint8)
            for number, name in named:
                table[number] = MP3D_ID.get(name.strip().replace(" ", "_"), 0)
            self._categories = table
        return self._categories

    def follow(self, goal: np.ndarray, goal_radius: float | None = None) -> str:
        """What habitat-sim's own `GreedyGeodesicFollower` does next: the name of a move, or `stop`.

        Raises:
            ValueError: there is no way to the goal.
        """
        radius = 0.75 * self.body.forward if goal_radius is None else goal_radius
        action = self.engine.call("follow", self.state.row, self.finder.points(goal)[0], radius)
        if action is None:
            raise ValueError(f"there is no way from {np.round(self.state.position, 3).tolist()} to the goal")
        return str(action)

    def close(self) -> None:
        self.engine.close()


class HabitatPathFinder:
    """`habitat_sim.PathFinder` with the methods of `envs.house.pathfinder.PathFinder`.

    Attributes:
        floor: the height that points without one are given, metres.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine, self.floor = engine, 0.0

    def points(self, points: np.ndarray) -> np.ndarray:
        """(P, 3) from (..., 3), or from (..., 2) on the agent's floor.

        Raises:
            ValueError: another shape, or a number that is not finite.
        """
        points = np.asarray(points, np.float64)
        if points.ndim == 0 or points.shape[-1] not in (2, 3) or not np.isfinite(points).all():
            raise ValueError(f"points of shape {points.shape} should be finite x, y or x, y, z")
        points = points.reshape(-1, points.shape[-1])
        return points if points.shape[1] == 3 else np.insert(points, 2, self.floor, 1)

    def is_navigable(self, points: np.ndarray) -> np.ndarray:
        """Whether an agent can stand at each of the points."""
        return np.asarray(self.engine.call("is_navigable", self.points(points))).reshape(np.shape(points)[:-1])

    def geodesics(self, starts: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """(S, G) metres; infinity where there is no way."""
        return np.asarray(self.engine.call("geodesics", self.points(starts), self.points(goals)))

    def geodesic(self, start: np.ndarray, goal: np.ndarray) -> float:
        """Metres from a point to another, or to the nearest of several."""
        return float(self.distances_to(goal)(start)[0])

    def distances_to(self, goals: np.ndarray) -> Any:
        """A function of points: metres to the nearest of the goals."""
        ends = self.points(goals)
        return lambda points: np.asarray(self.engine.call("geodesics", self.points(points), ends, nearest=True))

    def path(self, start: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """(K, 3) the points of the shortest path, start and goal included.

        Raises:
            ValueError: there is none.
        """
        path = np.asarray(self.engine.call("path", self.points(start)[0], self.points(goal)[0]))
        if not len(path):
            raise ValueError(f"there is no way from {np.round(start, 3).tolist()} to {np.round(goal, 3).tolist()}")
        return path

    def step(self, start: np.ndarray, end: np.ndarray, sliding: bool = True) -> tuple[np.ndarray, bool]:
        """Walk straight towards a point: where that ends (3,), and whether something was in the way."""
        reached, hit = self.engine.call("step", self.points(start)[0], self.points(end)[0], sliding)
        return np.asarray(reached), bool(hit)

    def clearance(self, point: np.ndarray) -> float:
        """Metres to the nearest obstacle, at most 2."""
        return float(self.engine.call("clearance", self.points(point)[0]))

    def snap(self, point: np.ndarray) -> np.ndarray:
        """The nearest navigable point (3,).

        Raises:
            ValueError: there is none near.
        """
        found = np.asarray(self.engine.call("snap", self.points(point)[0]))
        if not np.isfinite(found).all():
            raise ValueError(f"there is nowhere to stand near {np.round(point, 3).tolist()}")
        return found

    def random_point(self, rng: np.random.Generator, room: int | None = None) -> np.ndarray:
        """A navigable point (3,), uniform over the scene; habitat-sim knows no rooms."""
        return np.asarray(self.engine.call("random_point", int(rng.integers(2**31))))

    def top_down(self, resolution: float = 0.05) -> TopDownMap:
        """The agent's floor as an image of where one can walk; categories and rooms are not known.

        Raises:
            ValueError: `resolution` is not above 0.
        """
        if not resolution > 0:
            raise ValueError(f"a map's resolution of {resolution} m per pixel should be above 0")
        free, origin = self.engine.call("top_down", resolution, self.floor)
        free = np.asarray(free, bool)
        empty = np.zeros(free.shape, np.uint8)
        return TopDownMap(free, empty, np.full(free.shape, -1, np.int16), resolution, (origin[0], origin[1]))
