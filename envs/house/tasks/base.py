"""What all tasks in houses share: episodes by seed in houses of a split, observations, measures, and the oracle."""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from embodied.drawing import Canvas
from embodied.spec import DEPTH, IMAGES, POSE, STATE, TASK, ActionSpec, Camera, Embodiment, StateSpec
from envs.base import LETTERS
from envs.house.follower import GreedyGeodesicFollower
from envs.house.houses import House, check_split, draw
from envs.house.simulator import AgentState, Body, Simulator, camera_pose, relative, wrap
from envs.house.tasks.seeding import seeded
from envs.house.topdown import draw_walk, episode_plan
from envs.house.walk import Walk
from envs.perturbations import Perturbations

CAMERA = "front"
RATE = 4.0
"""Actions per second: a step of 0.25 m is then a walk of 1 m/s."""
SLACK, SOLVED = 0.01, 10.0
"""What a step costs and a success earns, beside a metre of progress that earns 1 (habitat-lab's reward)."""
GPS = ("gps_ahead", "gps_left", "compass_cos", "compass_sin")
HOUSES, DRAWS = 200, 10
"""So many houses are tried for an episode, each so often."""


@dataclass(frozen=True)
class Episode:
    """One thing to do in a house.

    Attributes:
        start: where the agent stands at first.
        goals: (G, 2) points; the way to the nearest counts.
        text: the instruction.
        reference: what scorers and readers want to know of it, plain JSON types.
    """

    start: AgentState
    goals: np.ndarray
    text: str
    reference: dict[str, Any] = field(default_factory=dict)


class HouseTask(gymnasium.Env, ABC):
    """The common part of an `embodied.interaction.Environment` in a house.

    An action is the index of one of `embodiment.action.names`, (1,): first the task's own, such as `stop`, which move
    nothing and usually end the episode, then the body's movements. `max_steps` end an episode, too. Observations:

    | key | |
    |---|---|
    | `observation.images.front` | uint8 (H, W, 3) |
    | `observation.depth.front` | float32 (H, W), metres, where the body has depth |
    | `observation.semantic.front`, `observation.instance.front` | int64 (H, W), where the body has them |
    | `observation.state` | float32: GPS and compass relative to the start, and what the task adds |
    | `observation.pose` | float32 (4, 4), camera (x right, y down, z ahead) to the start's floor (x ahead, z up) |
    | `task` | the instruction |

    `info` has `success`, `task`, `house` (its seed), `collided` and `distance` (to the goal). At the end of an episode
    it holds `measures` (habitat-lab's, by name), `prediction` and `reference`: rows for `embodied-score`.

    Args:
        body: how the agent moves and sees.
        split: `train`, `val` or `test`: houses of one are none of another's.
        houses: how many houses of the split are used; None: as many as there are.
        max_steps: after how many actions an episode ends.
        success_distance: metres; None: the benchmark's own. What it is measured to is the task's.
        wander: with this probability an action that would move the agent does another of its movements instead, so that
            demonstrations show how to come back (the stored action stays the one that was asked for).
        perturb: `instruction`: in words that training never uses.

    Raises:
        ValueError: an unknown option.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": round(RATE)}  # noqa: RUF012
    name: ClassVar[str]
    near: ClassVar[float]
    """The benchmark's own distance of success, metres."""
    own: ClassVar[tuple[str, ...]] = ("stop",)
    """The task's own actions; `decide` says what they do."""
    senses: ClassVar[tuple[str, ...]] = ()
    """Names of what the task adds to the state; `sense` gives the numbers."""
    units: ClassVar[tuple[str, ...]] = ()
    perturbable: ClassVar[tuple[str, ...]] = ("instruction",)

    def __init__(
        self,
        body: Body | None = None,
        split: str = "train",
        houses: int | None = None,
        max_steps: int = 500,
        success_distance: float | None = None,
        wander: float = 0.0,
        perturb: Mapping[str, float] | None = None,
    ) -> None:
        check_split(split, houses)
        who = type(self).__name__
        for option, value, fits in (
            ("max_steps", max_steps, max_steps >= 1),
            ("success_distance", success_distance, success_distance is None or success_distance > 0),
            ("wander", wander, 0 <= wander < 1),
        ):
            if not fits:
                raise ValueError(f"{who}: {option} cannot be {value}")
        for kind, level in Perturbations(perturb or {}).levels.items():
            if level and kind not in self.perturbable:
                raise ValueError(f"{who} takes no perturbation '{kind}'; there is {', '.join(self.perturbable)}")
        self.body, self.split, self.houses, self.max_steps = body or Body(), split, houses, max_steps
        if "rgb" not in self.body.outputs:
            raise ValueError(f"{who}: the body's outputs {list(self.body.outputs)} need rgb")
        self.success_distance = self.near if success_distance is None else success_distance
        self.wander = wander
        self.reworded = bool((perturb or {}).get("instruction"))
        self.tasks, self.render_mode = (self.name,), "rgb_array"
        names = (*self.own, *self.body.moves)
        count = len(names)
        self.embodiment = Embodiment(
            "house-agent",
            ActionSpec(names, ("1",) * count, (0.0,) * count, (1.0,) * count, "categorical", "none", "base"),
            StateSpec((*GPS, *self.senses), ("m", "m", "1", "1", *self.units), frame="none"),
            (Camera(CAMERA, self.body.height, self.body.width, self.body.renderer, "depth" in self.body.outputs),),
            RATE,
        )
        self.action_space: spaces.Space = spaces.Discrete(count)
        self.observation_space = self._space()
        self._sim: Simulator | None = None
        self._over = True

    @abstractmethod
    def draw(self, house: House, rng: np.random.Generator) -> Episode | None:
        """An episode in a house; None where the draw was no good one, and another is made."""

    def decide(self, action: str) -> tuple[bool, bool]:
        """What one of the task's own actions leads to: whether the episode is over, and whether it is solved.

        Here: over, and solved where the way to the goal is shorter than the distance of success.
        """
        return True, self.walk.distances[-1] < self.success_distance

    def sense(self) -> np.ndarray:
        """The numbers of `senses`."""
        return np.zeros(0)

    def arrived(self) -> str:
        """What the oracle does where it has arrived."""
        return self.own[0]

    def notice(self) -> None:
        """Called at the start and after every action, before the oracle is asked."""

    def measures(self) -> dict[str, float]:
        """What the episode came to, by name."""
        return self.walk.measures(self.success, self.success_distance)

    def record(self) -> dict[str, Any]:
        """The row of the episode that `embodied-score` reads."""
        return self.walk.prediction(self.episode_id, self.ended)

    # an episode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin the episode of a seed; the same in any process, whatever ran before.

        Raises:
            ValueError: another task than this one, an unknown option, a negative seed.
        """
        seed = seeded(self, seed, options)
        self.rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        self.episode_id = f"{self.split}-{seed}"
        for _ in range(HOUSES):
            house = draw(self.split, self.houses, self.rng)
            self._sim = Simulator(house, self.body)
            episode = next(filter(None, (self.draw(house, self.rng) for _ in range(DRAWS))), None)
            if episode is not None:
                self.begin(episode)
                return self.observation(), self.info()
        raise ValueError(
            f"{type(self).__name__}: no episode of seed {seed} was found in {HOUSES} houses of {self.split}"
        )

    def begin(self, episode: Episode) -> None:
        """Put the agent at the start of an episode in the present house."""
        self.episode, self.walk, self.ended = episode, Walk(), False
        self.follower = GreedyGeodesicFollower(self.sim, min(0.75 * self.body.forward, self.success_distance))
        self.sim.place(episode.start)
        self.success, self._over = False, False
        self._advice: str | None = None
        self._plan: Canvas | None = None
        self.aim(episode.goals)
        self.walk.add(self.sim.state.position, self.distance())
        self.notice()

    def aim(self, goals: np.ndarray) -> None:
        """From now on distances are to the nearest of (G, 2) points."""
        self.field: Callable[[np.ndarray], np.ndarray] = self.sim.finder.distances_to(goals)

    def distance(self) -> float:
        """Metres to the goal, along the shortest way."""
        return float(self.field(self.sim.state.position[None])[0])

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One action: the index of a name.

        Raises:
            ValueError: no such index; the episode is over.
        """
        if self._over:
            raise ValueError(f"{type(self).__name__}: the episode is over: call reset before step")
        name, before = self.name_of(action), self.walk.distances[-1]
        self.walk.actions.append(name)
        reward = -SLACK
        if name in self.body.moves:
            self.sim.step(self.disturbed(name))
            self.walk.add(self.sim.state.position, self.distance())
            reward += before - self.walk.distances[-1]
        else:
            self.ended, self.success = self.decide(name)
            self._over = self.ended
        reward += SOLVED * self.success
        self._advice = None
        self.notice()
        truncated = not self._over and len(self.walk.actions) >= self.max_steps
        terminated, self._over = self._over, self._over or truncated
        return self.observation(), float(reward), terminated, truncated, self.info()

    def disturbed(self, name: str) -> str:
        """The movement that is really made."""
        if self.wander and self.rng.random() < self.wander:
            return str(self.rng.choice([move for move in self.body.moves if move != name]))
        return name

    def name_of(self, action: Any) -> str:
        """The name at an index, a number or (1,).

        Raises:
            ValueError: no such index.
        """
        names = self.embodiment.action.names
        values = np.asarray(action, np.float64).reshape(-1)
        if len(values) != 1 or not math.isfinite(values[0]) or values[0] not in range(len(names)):
            raise ValueError(
                f"an action is one index from 0 to {len(names) - 1} ({', '.join(names[:8])}), got {values.tolist()}"
            )
        return names[int(values[0])]

    # what is seen and said

    @property
    def sim(self) -> Simulator:
        """The simulator of the present episode's house.

        Raises:
            ValueError: before the first reset, or closed since.
        """
        if self._sim is None:
            raise ValueError(f"{type(self).__name__}: call reset first")
        return self._sim

    def observation(self) -> dict[str, Any]:
        state, start = self.sim.state, self.episode.start
        seen = self.sim.observe()
        found: dict[str, Any] = {IMAGES + CAMERA: seen["rgb"]}
        if "depth" in seen:
            found[DEPTH + CAMERA] = seen["depth"]
        for kind in ("semantic", "instance"):
            if kind in seen:
                found[f"observation.{kind}.{CAMERA}"] = seen[kind].astype(np.int64)
        turned = wrap(state.heading - start.heading)
        gps = relative(state.position, start)
        found[STATE] = np.array([*gps, math.cos(turned), math.sin(turned), *self.sense()], np.float32)
        found[POSE] = self.pose(state, start)
        found[TASK] = self.episode.text
        return found

    def pose(self, state: AgentState, start: AgentState) -> np.ndarray:
        """The camera of a state, (4, 4), in the frame of the start; see the observation."""
        return camera_pose(state, self.body.camera_height, start)

    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "success": bool(self.success),
            "task": self.name,
            "house": self.sim.house.spec.seed,
            "collided": self.sim.collided,
            "distance": self.walk.distances[-1],
        }
        if self._over:
            found["measures"] = self.measures()
            found["prediction"] = self.record()
            found["reference"] = {"episode_id": self.episode_id, "house": found["house"], **self.episode.reference}
        return found

    def oracle(self) -> np.ndarray:
        """The expert's action (1,), float32, at the present state, wherever other actions have led: DAgger's label."""
        if self._advice is None:
            self._advice = self.advise()
        return np.array([self.embodiment.action.names.index(self._advice)], np.float32)

    def advise(self) -> str:
        """The name of the expert's action."""
        action = self.follower.next_action(self.sim.state, self.field, self.walk.actions)
        return self.arrived() if action == "stop" else action

    def render(self) -> np.ndarray:
        """What the agent sees, uint8 (H, W, 3)."""
        return self.sim.observe()["rgb"]

    def drawings(self) -> dict[str, np.ndarray]:
        """`map`: the episode from above, uint8 (512, W, 3), see `envs.house.topdown`."""
        if self._plan is None:
            self._plan = episode_plan(self.sim.house, self.sim.finder, self.episode.start, self.stops(), self.targets())
        walked = np.array(self.walk.positions)[:, :2]
        return {"map": draw_walk(self._plan, walked, self.sim.state, self.body.field_of_view)}

    def stops(self) -> list[np.ndarray]:
        """One after the other, (G, 2) points of which the agent is to reach one."""
        return [self.episode.goals]

    def targets(self) -> list[int]:
        """Places in `HouseSpec.objects` of what the agent is looking for, as far as the reference tells."""
        goals = self.episode.reference.get("goals", ())
        told = [self.episode.reference.get("target"), *(goal.get("object_id") for goal in goals)]
        return sorted({int(place) for place in told if place is not None})

    def close(self) -> None:
        """Forget the house; the environment can be reset again."""
        self._sim, self._over = None, True

    def _space(self) -> spaces.Dict:
        body = self.body
        size = (body.height, body.width)
        assert self.embodiment.state is not None
        parts: dict[str, spaces.Space] = {
            IMAGES + CAMERA: spaces.Box(0, 255, (*size, 3), np.uint8),
            STATE: spaces.Box(-np.inf, np.inf, (self.embodiment.state.dim,), np.float32),
            POSE: spaces.Box(-np.inf, np.inf, (4, 4), np.float32),
            TASK: spaces.Text(2000, charset=LETTERS + "?:"),
        }
        if "depth" in body.outputs:
            parts[DEPTH + CAMERA] = spaces.Box(0, np.inf, size, np.float32)
        for kind in ("semantic", "instance"):
            if kind in body.outputs:
                parts[f"observation.{kind}.{CAMERA}"] = spaces.Box(0, 2**16, size, np.int64)
        return spaces.Dict(parts)


def start_in(simulator: Simulator, rng: np.random.Generator, turns: int = 12) -> AgentState:
    """Somewhere in a house, heading in one of `turns` directions at random."""
    point = simulator.finder.random_point(rng)
    return AgentState(float(point[0]), float(point[1]), wrap(2 * math.pi * int(rng.integers(turns)) / turns))
