"""Walking in graphs of viewpoints: Room-to-Room's discrete setting, in generated houses and in Matterport3D's graphs.

Two ways to act:

- `panoramic`: `stop`, or go to `candidate k`, the k-th neighbour counter-clockwise from ahead; the agent then looks the
  way it went. Candidates' bearings and distances are in the state.
- `low`: Room-to-Room's own: `stop`, `forward` to the neighbour nearest to the middle of the view, `left`, `right`, `up`
  and `down` by 30 degrees.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from embodied.drawing import Canvas
from embodied.spec import DEPTH, IMAGES, POSE, STATE, TASK, ActionSpec, Camera, Embodiment, StateSpec
from envs.base import LETTERS
from envs.house.simulator import AgentState, camera_pose, wrap
from envs.house.tasks.seeding import seeded
from envs.house.topdown import blank_for, draw_walk, graph_plan
from envs.house.viewpoints import ELEVATIONS, HEADINGS, ViewpointGraph, to_matterport
from envs.house.walk import Walk

STEP = 2 * math.pi / HEADINGS
HALF_VIEW = math.atan(4 / 3 * math.tan(math.radians(30)))
"""Half the width of a view: 640 x 480 pixels, 60 degrees high."""
LOW = ("stop", "forward", "left", "right", "up", "down")
SENSES = ("ahead", "left", "cos", "sin", "elevation")
NODE, NEIGHBOURS, ANGLES = "observation.node", "observation.neighbours", "observation.angles"
TURN_COST = 0.01
"""Metres that the oracle deems a turn to cost, so that it turns no more than it has to."""
RATE = 1.0
LARGEST = 2**31 - 1
"""No graph has more viewpoints."""


@dataclass(frozen=True)
class GraphEpisode:
    """One thing to do in a graph.

    Attributes:
        graph: where.
        start, goal: rows; heading: at the start, radians, counter-clockwise from +x.
        text: the instruction.
        name: the prediction's id.
        reference: what scorers need.
    """

    graph: ViewpointGraph
    start: int
    goal: int
    heading: float
    text: str
    name: str
    reference: dict[str, Any]


class GraphTask(gymnasium.Env, ABC):
    """The common part of an `embodied.interaction.Environment` on a graph of viewpoints.

    Success is to end, by `stop` or because `max_steps` are over, less than 3 m from the goal along the graph
    (Room-to-Room's rule). The state is where the agent is relative to the start (metres ahead and to the left), cosine
    and sine of how far it has turned, its elevation, and with panoramic actions for each candidate: whether it is
    there, cosine and sine of its bearing, metres. `info` has `viewpoint`, and at the end `measures`, `prediction` and
    `reference`: rows for `embodied-score profile=r2r`.

    With `neighbours` observations tell what maps of navigation graphs read. C is `candidates`, V how many views show a
    viewpoint; the frame is the start's (x ahead, y left, z up), heights are the graph's, and -1 fills up:

    | key | |
    |---|---|
    | `observation.node` | int64 (): the viewpoint's row in the graph |
    | `observation.neighbours` | int64 (C,): the rows of its neighbours, counter-clockwise from ahead |
    | `observation.neighbours.places` | float32 (C, 3): where they are, metres |
    | `observation.pose` | float32 (4, 4): camera (x right, y down, z ahead) to the frame |
    | `observation.angles` | float32 (V, 2): heading and elevation of each view, radians; only where there are several |
    | `observation.neighbours.views` | int64 (C,): the view nearest to each neighbour's direction; likewise |

    Args:
        actions: `panoramic` or `low`.
        candidates: how many neighbours can be told apart, with panoramic actions.
        max_steps: after how many actions an episode ends.
        success_distance: metres.
        cameras: of the embodiment; `extras` gives their images.
        neighbours: whether observations tell the viewpoint and its neighbours.
        views: V, how many views show a viewpoint; `angles` says where they look.
        more: spaces of what else `extras` gives, by key.

    Raises:
        ValueError: an unknown option.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": round(RATE)}  # noqa: RUF012
    name: ClassVar[str]

    def __init__(
        self,
        actions: str = "panoramic",
        candidates: int = 16,
        max_steps: int = 30,
        success_distance: float = 3.0,
        cameras: tuple[Camera, ...] = (),
        neighbours: bool = False,
        views: int = 0,
        more: Mapping[str, spaces.Space] | None = None,
    ) -> None:
        who = type(self).__name__
        if actions not in ("panoramic", "low"):
            raise ValueError(f"{who}: actions is panoramic or low, got '{actions}'")
        if candidates < 1 or max_steps < 1 or not success_distance > 0:
            raise ValueError(f"{who}: candidates and max_steps are 1 or more, success_distance is above 0 metres")
        self.low, self.candidates, self.max_steps = actions == "low", candidates, max_steps
        self.success_distance, self.tasks, self.render_mode = success_distance, (self.name,), "rgb_array"
        self.tells, self.views = neighbours, views
        names = LOW if self.low else ("stop", *(f"candidate {k}" for k in range(candidates)))
        felt, units = list(SENSES), ["m", "m", "1", "1", "rad"]
        for k in range(0 if self.low else candidates):
            felt += [f"candidate{k}_{what}" for what in ("there", "cos", "sin", "distance")]
            units += ["1", "1", "1", "m"]
        count = len(names)
        self.embodiment = Embodiment(
            "graph-agent",
            ActionSpec(names, ("1",) * count, (0.0,) * count, (1.0,) * count, "categorical", "none", "base"),
            StateSpec(tuple(felt), tuple(units), frame="none"),
            cameras,
            RATE,
        )
        self.action_space: spaces.Space = spaces.Discrete(count)
        parts: dict[str, spaces.Space] = {
            STATE: spaces.Box(-np.inf, np.inf, (len(felt),), np.float32),
            TASK: spaces.Text(5000, charset=LETTERS + '?:;!()"&/\n'),
        }
        for camera in cameras:
            key = IMAGES + camera.name
            parts[key] = spaces.Box(0, 255, (camera.height, camera.width, 3), np.uint8)
            if camera.depth:
                parts[DEPTH + camera.name] = spaces.Box(0, np.inf, (camera.height, camera.width), np.float32)
        if neighbours:
            parts[NODE] = spaces.Box(0, LARGEST, (), np.int64)
            parts[NEIGHBOURS] = spaces.Box(-1, LARGEST, (candidates,), np.int64)
            parts[NEIGHBOURS + ".places"] = spaces.Box(-np.inf, np.inf, (candidates, 3), np.float32)
        if neighbours and views:
            parts[ANGLES] = spaces.Box(-np.inf, np.inf, (views, 2), np.float32)
            parts[NEIGHBOURS + ".views"] = spaces.Box(0, views - 1, (candidates,), np.int64)
        if cameras or neighbours:
            parts[POSE] = spaces.Box(-np.inf, np.inf, (4, 4), np.float32)
        self.observation_space = spaces.Dict(parts | dict(more or {}))
        self._over = True
        self._plan: tuple[np.ndarray, np.ndarray] | None = None
        self._ground: Canvas | None = None

    @abstractmethod
    def draw(self, seed: int) -> GraphEpisode:
        """The episode of a seed."""

    def extras(self) -> dict[str, Any]:
        """More of an observation: images, features."""
        return {}

    def angles(self) -> np.ndarray:
        """(V, 2) heading, as the graph's, and elevation of each view of the present viewpoint, radians."""
        return np.zeros((self.views, 2))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin the episode of a seed.

        Raises:
            ValueError: another task than this one, an unknown option, a negative seed.
        """
        seed = seeded(self, seed, options)
        self.episode = episode = self.draw(seed)
        widest = int(episode.graph.joined.sum(1).max())
        if self.counts and widest > self.candidates:
            raise ValueError(
                f"{episode.graph.scan} has a viewpoint with {widest} neighbours: candidates={widest} or more is needed"
            )
        self.at, self.heading, self.elevation = episode.start, episode.heading, 0
        if self.low:  # the simulator's views are 30 degrees apart
            self.heading = math.pi / 2 - STEP * round(to_matterport(self.heading) / STEP)
        self.walk, self.trajectory = Walk(), [self.pose()]
        self.success, self._over, self._plan, self._ground = False, False, None, None
        self._log()
        return self.observation(), self.info()

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One action: the index of a name. A candidate that is not there, or nothing ahead, leaves all as it is.

        Raises:
            ValueError: no such index; the episode is over.
        """
        names = self.embodiment.action.names
        if self._over:
            raise ValueError(f"{type(self).__name__}: the episode is over: call reset before step")
        values = np.asarray(action, np.float64).reshape(-1)
        if len(values) != 1 or values[0] not in range(len(names)):
            raise ValueError(f"an action is one index from 0 to {len(names) - 1}, got {values.tolist()}")
        name, before = names[int(values[0])], self.walk.distances[-1]
        self.walk.actions.append(name)
        if name == "stop":
            self._over = True
        elif self.low:
            self.at, column, row = self._moved(self.at, self.column, self.elevation + 1, name)
            self.heading, self.elevation = math.pi / 2 - STEP * column, row - 1
        else:
            near = self.graph.candidates(self.at, self.heading)
            if int(values[0]) <= len(near):
                other = near[int(values[0]) - 1]
                self.heading, self.at = self.graph.direction(self.at, other)[0], other
        if name != "stop":
            self.trajectory.append(self.pose())
            self._log()
        terminated = self._over
        self._over = terminated or len(self.walk.actions) >= self.max_steps
        self.success = self._over and self.walk.distances[-1] < self.success_distance
        reward = before - self.walk.distances[-1] + 10.0 * self.success - 0.01
        return self.observation(), float(reward), terminated, self._over and not terminated, self.info()

    # what is seen and said

    @property
    def counts(self) -> bool:
        """Whether a viewpoint with more neighbours than `candidates` can't be stood at."""
        return self.tells or not self.low

    @property
    def graph(self) -> ViewpointGraph:
        return self.episode.graph

    @property
    def column(self) -> int:
        """Which of the 12 headings one looks along, as Matterport3DSimulator counts them."""
        return round(to_matterport(self.heading) / STEP) % HEADINGS

    def pose(self) -> list[Any]:
        """[viewpoint, heading, elevation] as in Matterport3DSimulator's trajectories."""
        return [self.graph.names[self.at], to_matterport(self.heading), self.elevation * STEP]

    def observation(self) -> dict[str, Any]:
        start, c, s = self.episode.start, math.cos(self.episode.heading), math.sin(self.episode.heading)
        x, y, _ = self.graph.positions[self.at] - self.graph.positions[start]
        turned = self.heading - self.episode.heading
        felt = [c * x + s * y, c * y - s * x, math.cos(turned), math.sin(turned), self.elevation * STEP]
        if not self.low:
            rows = np.zeros((self.candidates, 4))
            for k, other in enumerate(self.graph.candidates(self.at, self.heading)):
                angle, _, metres = self.graph.direction(self.at, other)
                rows[k] = 1, math.cos(angle - self.heading), math.sin(angle - self.heading), metres
            felt += rows.ravel().tolist()
        found = {STATE: np.array(felt, np.float32), TASK: self.episode.text}
        return found | (self.surroundings() if self.tells else {}) | self.extras()

    def camera(self) -> np.ndarray:
        """(4, 4) float32 from the (first) camera's axes to the start's frame; one of several looks level."""
        pitch = self.elevation * STEP if len(self.embodiment.cameras) <= 1 else 0.0
        (x, y, z), first = self.graph.positions[self.at], self.graph.positions[self.episode.start]
        start = AgentState(float(first[0]), float(first[1]), self.episode.heading)
        return camera_pose(AgentState(float(x), float(y), self.heading, pitch), float(z), start)

    def surroundings(self) -> dict[str, Any]:
        """The viewpoint and its neighbours; see the class's table."""
        near = self.graph.candidates(self.at, self.heading)
        nodes, places = np.full(self.candidates, -1), np.zeros((self.candidates, 3), np.float32)
        turn = self.episode.heading
        c, s = math.cos(turn), math.sin(turn)
        away = self.graph.positions[near] - [*self.graph.positions[self.episode.start][:2], 0.0]
        nodes[: len(near)], places[: len(near)] = near, away @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        found = {NODE: np.array(self.at), NEIGHBOURS: nodes, NEIGHBOURS + ".places": places, POSE: self.camera()}
        if self.views:
            angles, shown = self.angles(), np.zeros(self.candidates, np.int64)
            for k, other in enumerate(near):
                heading, up, _ = self.graph.direction(self.at, other)
                level = np.cos(angles[:, 1]) * math.cos(up) * np.cos(angles[:, 0] - heading)
                shown[k] = int(np.argmax(level + np.sin(angles[:, 1]) * math.sin(up)))
            found[ANGLES] = (angles - [turn, 0.0]).astype(np.float32)
            found[NEIGHBOURS + ".views"] = shown
        return found

    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "success": bool(self.success),
            "task": self.name,
            "scan": self.graph.scan,
            "viewpoint": self.graph.names[self.at],
            "distance": self.walk.distances[-1],
        }
        if self._over:
            found["measures"] = self.walk.measures(self.success, self.success_distance)
            found["prediction"] = {"instr_id": self.episode.name, "trajectory": self.trajectory}
            found["reference"] = self.episode.reference
        return found

    def drawings(self) -> dict[str, np.ndarray]:
        """`map`: the episode from above, uint8 (512, W, 3), see `envs.house.topdown`."""
        if self._ground is None:
            path = self.graph.path(self.episode.start, self.episode.goal)
            self._ground = graph_plan(self.paper(), self.graph, path)
        walked = self.graph.positions[[self.graph.places[pose[0]] for pose in self.trajectory], :2]
        state = AgentState(float(walked[-1, 0]), float(walked[-1, 1]), self.heading)
        return {"map": draw_walk(self._ground, walked, state, math.degrees(2 * HALF_VIEW))}

    def paper(self) -> Canvas:
        """What lies below the graph: nothing, unless more is known than the graph."""
        return blank_for(self.graph)

    def render(self) -> np.ndarray:
        """The same map, for those who ask an environment for one picture."""
        return self.drawings()["map"]

    # the oracle

    def oracle(self) -> np.ndarray:
        """The index of the action (1,), float32, that leads on along the shortest way to the goal."""
        names = self.embodiment.action.names
        if self.at == self.episode.goal:
            return np.zeros(1, np.float32)
        if not self.low:
            other = self.graph.path(self.at, self.episode.goal)[1]
            return np.array([1 + self.graph.candidates(self.at, self.heading).index(other)], np.float32)
        if self._plan is None:
            self._plan = self._solve()
        costs, ends = self._plan
        here = (self.at * ELEVATIONS + self.elevation + 1) * HEADINGS + self.column
        best = min(range(1, len(names)), key=lambda k: costs[here, k] if ends[here, k] != here else math.inf)
        return np.array([best], np.float32)

    def _solve(self) -> tuple[np.ndarray, np.ndarray]:
        """For each state (viewpoint, row, column) and action, metres to the goal by way of it, and where it leads."""
        count = len(self.graph.names) * ELEVATIONS * HEADINGS
        ends, prices = np.zeros((count, len(LOW)), int), np.full((count, len(LOW)), TURN_COST)
        for state in range(count):
            place, row, column = state // (ELEVATIONS * HEADINGS), state // HEADINGS % ELEVATIONS, state % HEADINGS
            for k, name in enumerate(LOW):
                other, to, tilt = self._moved(place, column, row, name)
                ends[state, k] = (other * ELEVATIONS + tilt) * HEADINGS + to
                if other != place:
                    prices[state, k] = math.dist(self.graph.positions[place], self.graph.positions[other])
        rows = np.repeat(np.arange(count), len(LOW))
        keep = ends.ravel() != rows
        table = csr_array((prices.ravel()[keep], (ends.ravel()[keep], rows[keep])), shape=(count, count))
        first = self.episode.goal * ELEVATIONS * HEADINGS
        left = dijkstra(table, indices=range(first, first + ELEVATIONS * HEADINGS), min_only=True)
        return prices + left[ends], ends

    def _moved(self, place: int, column: int, row: int, name: str) -> tuple[int, int, int]:
        """Where a low-level action leads: viewpoint, column and row of the view."""
        if name in ("left", "right"):
            return place, (column + (1 if name == "right" else -1)) % HEADINGS, row
        if name in ("up", "down"):
            return place, column, min(ELEVATIONS - 1, max(0, row + (1 if name == "up" else -1)))
        ahead = self._ahead(place, column, row) if name == "forward" else None
        return place if ahead is None else ahead, column, row

    def _ahead(self, place: int, column: int, row: int) -> int | None:
        """The neighbour in view that is nearest to the middle of it."""
        heading, elevation = math.pi / 2 - STEP * column, (row - 1) * STEP
        best, closest = None, math.inf
        for other in np.flatnonzero(self.graph.joined[place]):
            angle, up, _ = self.graph.direction(place, int(other))
            aside = wrap(angle - heading)
            if abs(aside) < HALF_VIEW and math.hypot(aside, up - elevation) < closest:
                best, closest = int(other), math.hypot(aside, up - elevation)
        return best

    def _log(self) -> None:
        position = self.graph.positions[self.at]
        self.walk.positions.append((float(position[0]), float(position[1]), float(position[2])))
        self.walk.distances.append(float(self.graph.distances[self.at, self.episode.goal]))
