"""panda-gym's tasks (Gallouédec et al. 2021, arXiv 2106.13687; version 3) on PyBullet, from pixels or state.

A Franka Panda arm with a parallel gripper. The robot, the scenes, the tasks and what counts as success are panda-gym's
own classes. What this adds:

- **The seed decides the episode.** PyBullet keeps contacts and motor targets through a reset, and an episode would
  depend on those before. Here every reset empties the simulation and builds robot and scene again, in 0.1 s. An episode
  then equals, bit by bit, the first one of a new panda-gym environment with that seed.
- **A policy sees what a robot would.** `observation.state` is the hand's position and velocity and the gripper's
  opening; objects and goals are in `observation.environment_state`, which only state modes have.
- **Goals can be told from objects.** panda-gym draws a goal as a transparent copy of its object, which PyBullet's
  software renderer draws opaque, the same as the object. Goals are red here; those of `stack`, which has two, pale blue
  and pale green. `Camera.renderer` records it.
- **One body for all tasks.** The gripper has a place in the action and the state of every task, also of those in which
  panda-gym keeps it shut (reach, push, slide) and nothing that it is told has an effect.
- **Nothing is clipped in silence.** `info["clipped"]` counts the actions that left their bounds, or
  `out_of_bounds="error"` refuses them. NaN is always refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import yaml
from gymnasium import spaces
from gymnasium.utils import seeding

from embodied.building import nearest
from embodied.spec import ENVIRONMENT_STATE, IMAGES, STATE, TASK, ActionSpec, Embodiment, StateSpec
from envs.perturbations import Drawn, Perturbations
from envs.pybullet.library import connect, load
from envs.pybullet.rendering import TinyRenderer, View, views_of

CAMERAS = {
    "front": View("front", (0.9, 0.0, 0.6), (0.0, 0.0, 0.14), 30),
    "side": View("side", (0.0, 0.9, 0.6), (0.0, 0.0, 0.14), 30),
    "overview": View("overview", (1.2, 0.0, 1.0), (0.2, 0.0, 0.03), 30),
    "wrist": View("wrist", (0.1, 0.0, 0.02), (0.03, 0.0, 0.12), 75, up=(1.0, 0.0, 0.0), link=8),
}
"""`front` and `side` look at where the cubes and their goals are, `overview` at all of the puck's way."""

RED, PALE_BLUE, PALE_GREEN = (0.9, 0.1, 0.1), (0.6, 0.6, 1.0), (0.6, 1.0, 0.6)
GREEN, BLUE, TABLE, FLOOR = (0.1, 0.9, 0.1), (0.1, 0.1, 0.9), (0.95, 0.95, 0.95), (0.15, 0.15, 0.15)
RATE = 25.0
"""Actions per second: 20 physics steps of 2 ms each."""
OBJECT, OBJECTS, GOAL = 12, 2, 3
"""An object's position, rotation (Euler angles), velocity and angular velocity; at most two objects, a goal each."""
TRUTH = OBJECTS * (OBJECT + GOAL)
NEUTRAL_TURN = np.array([1.0, 0.0, 0.0, 0.0])
"""The hand's orientation, pointing down; quaternion xyzw."""

CARTESIAN = ActionSpec(
    names=("x", "y", "z", "gripper"),
    units=("cm", "cm", "cm", "1"),
    low=(-5.0, -5.0, -5.0, -1.0),
    high=(5.0, 5.0, 5.0, 1.0),
    control="delta",
    space="cartesian",
    frame="world",
    gripper=3,
    gripper_closed=-1,
)
"""Where to move the hand to from where it is, and by how much to change the opening, in units of 20 cm (it spans 8)."""

JOINTS = ActionSpec(
    names=(*(f"joint{i}" for i in range(1, 8)), "gripper"),
    units=("rad",) * 7 + ("1",),
    low=(-0.05,) * 7 + (-1.0,),
    high=(0.05,) * 7 + (1.0,),
    control="delta",
    space="joint",
    frame="none",
    gripper=7,
    gripper_closed=-1,
)
"""Where to turn each joint to from where it is, and the opening as above."""

HAND_STATE = StateSpec(
    names=("x", "y", "z", "vx", "vy", "vz", "gripper_width"), units=("m",) * 3 + ("m/s",) * 3 + ("m",), frame="world"
)
JOINT_STATE = StateSpec(
    names=(*HAND_STATE.names, *JOINTS.names[:7]), units=(*HAND_STATE.units, *JOINTS.units[:7]), frame="world"
)


@dataclass(frozen=True)
class _Task:
    """What panda-gym says of a task in code: its class, and whether its environment keeps the gripper shut."""

    module: str
    name: str
    shut: bool
    objects: Mapping[str, tuple[float, float, float]]
    goals: Mapping[str, tuple[float, float, float]]


_CUBE, _RED = {"object": GREEN}, {"target": RED}
_PALE = {"target1": PALE_BLUE, "target2": PALE_GREEN}
TASKS = {
    "reach": _Task("reach", "Reach", True, {}, _RED),
    "push": _Task("push", "Push", True, _CUBE, _RED),
    "pick-place": _Task("pick_and_place", "PickAndPlace", False, _CUBE, _RED),
    "slide": _Task("slide", "Slide", True, _CUBE, _RED),
    "stack": _Task("stack", "Stack", False, {"object1": BLUE, "object2": GREEN}, _PALE),
}


@cache
def instructions() -> dict[str, str]:
    """Each task's name and what it asks for in words."""
    return dict(yaml.safe_load(Path(__file__).with_name("panda_tasks.yaml").read_text(encoding="utf-8")))


@cache
def rephrased() -> dict[str, list[str]]:
    """Other words for each task."""
    return dict(yaml.safe_load(Path(__file__).with_name("panda_rephrased.yaml").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Truth:
    """What is where, metres and metres per second, in the world; float64.

    Attributes:
        task: its name.
        hand, velocity: (3,), of the point between the fingertips.
        width: of the gripper's opening.
        objects, goals: (n, 3) each, as many as the task has; goal i is object i's. `reach` has one goal, the hand's.
        moving: (n, 3), the objects' velocities.
    """

    task: str
    hand: np.ndarray
    velocity: np.ndarray
    width: float
    objects: np.ndarray
    goals: np.ndarray
    moving: np.ndarray


class PandaGym(gymnasium.Env):
    """One or several of panda-gym's tasks; implements `embodied.interaction.Environment`.

    Observations, by `observe`:

    | key | pixels | state | both | |
    |---|---|---|---|---|
    | `observation.images.<camera>` | x | | x | uint8 (H, W, 3) |
    | `observation.state` | x | x | x | float32 (7,): hand's position (m) and velocity (m/s), gripper's opening (m) |
    | `observation.environment_state` | | x | x | float32 (30,): objects and goals, see below |
    | `task` | x | x | x | the instruction |

    With `control=joints`, the state goes on with the seven joint angles (rad). The environment state is two objects'
    position (m), rotation (rad, Euler angles), velocity (m/s) and angular velocity (rad/s), then their two goals' (m);
    zeros for those a task does not have. The reward is panda-gym's sparse one: 0 at the goal and -1 elsewhere. `info`
    holds `success` (bool), `task` (the task's name) and `clipped` (how many actions were out of bounds so far).

    Args:
        tasks: of `TASKS`; None for all five.
        cameras: of `CAMERAS`, in order.
        height, width: pixels of each picture.
        observe: `pixels`, `state` or `both`.
        control: `cartesian`, see `CARTESIAN`, or `joints`, see `JOINTS`.
        max_steps: after how many steps an episode is truncated; panda-gym's own are 50, and 100 for stack.
        stop_on_success: whether the first success ends the episode, as in panda-gym.
        out_of_bounds: `clip` actions outside their bounds and count them, or raise an `error`.
        perturb: level by kind of perturbation, see `envs.perturbations`.

    Raises:
        ValueError: an unknown task, camera, mode or perturbation; panda-gym is not installed.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": int(RATE)}  # noqa: RUF012 (gymnasium's name)

    def __init__(
        self,
        tasks: Sequence[str] | None = None,
        cameras: Sequence[str] = ("front", "side"),
        height: int = 96,
        width: int = 96,
        observe: str = "pixels",
        control: str = "cartesian",
        max_steps: int = 100,
        stop_on_success: bool = True,
        out_of_bounds: str = "clip",
        perturb: Mapping[str, float] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.tasks = tuple(TASKS if tasks is None else tasks)
        for task in self.tasks:
            if task not in TASKS:
                raise ValueError(f"panda-gym has no task '{task}'{nearest(task, TASKS)}")
        if not self.tasks:
            raise ValueError("PandaGym: tasks is empty; null means all five")
        _one_of("observe", observe, ("pixels", "state", "both"))
        _one_of("control", control, ("cartesian", "joints"))
        _one_of("out_of_bounds", out_of_bounds, ("clip", "error"))
        if max_steps < 1:
            raise ValueError(f"PandaGym: max_steps is 1 or more, got {max_steps}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"PandaGym: render_mode is rgb_array or none, got '{render_mode}'")
        if observe != "state" and not cameras:
            raise ValueError(f"PandaGym: observe={observe} needs a camera; there is {', '.join(CAMERAS)}")
        self._perturbations = Perturbations(perturb or {})
        load("panda_gym")
        self.max_steps, self.stop_on_success, self.out_of_bounds = max_steps, stop_on_success, out_of_bounds
        self.render_mode = render_mode
        self._with_truth, self._with_pixels = observe != "pixels", observe != "state"
        self._views = views_of(cameras, CAMERAS, height, width)
        seen = tuple(view.camera("goal=red") for view in self._views) if self._with_pixels else ()
        self.action_spec, state = (CARTESIAN, HAND_STATE) if control == "cartesian" else (JOINTS, JOINT_STATE)
        self.embodiment = Embodiment("panda", self.action_spec, state, seen, RATE)
        self._low, self._high = (np.array(x, np.float32) for x in (self.action_spec.low, self.action_spec.high))
        self.action_space = spaces.Box(self._low, self._high, dtype=np.float32)
        self.observation_space = self._space(state.dim)
        self._control = control
        self.task, self._instruction = self.tasks[0], ""
        self._sim: Any = None
        self._robot: Any = None
        self._goal: Any = None  # panda-gym's task object
        self._renderer: TinyRenderer | None = None
        self._drawn: Drawn = self._perturbations.of(self.task, 0)
        self._steps = self._clipped = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin the episode that (seed, task) names; the same wherever the libraries are, whatever ran before.

        Args:
            seed: where objects and goals are; None draws one from the environment's own generator.
            options: `{"task": name}`; without it, the first of `tasks`.

        Raises:
            ValueError: a task that is none of `tasks`, an unknown option, a negative seed.
        """
        if seed is not None and seed < 0:
            raise ValueError(f"PandaGym: a seed is 0 or more, got {seed}")
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        unknown = set(options or {}) - {"task"}
        if unknown:
            raise ValueError(f"PandaGym: unknown reset option '{min(unknown)}'; there is task")
        task = (options or {}).get("task", self.tasks[0])
        if task not in self.tasks:
            raise ValueError(f"this environment was not made for task '{task}'{nearest(task, self.tasks)}")
        self.task = task
        self._begin(task, seed)
        self._steps = self._clipped = 0
        success = self._succeeded()
        return self._observe(), {"success": success, "task": task, "clipped": 0}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One action (4,), or (8,) for joints: float, in the units of the embodiment's action.

        Raises:
            ValueError: the wrong shape, NaN, or (with `out_of_bounds="error"`) out of bounds.
        """
        self._running("step")
        if self._steps >= self.max_steps:
            raise ValueError(f"PandaGym: the episode ended after {self.max_steps} steps; call reset")
        asked = self._bounded(action) / self._high  # panda-gym's own actions are within [-1, 1]
        self._robot.set_action(asked[:-1] if TASKS[self.task].shut else asked)
        self._sim.step()
        self._steps += 1
        success = self._succeeded()
        info = {"success": success, "task": self.task, "clipped": self._clipped}
        reward = float(self._goal.compute_reward(self._achieved(), self._goal.get_goal(), info))
        return self._observe(), reward, success and self.stop_on_success, self._steps >= self.max_steps, info

    def truth(self) -> Truth:
        """What is where in the present state: what scripted experts read.

        Raises:
            ValueError: before the first reset.
        """
        self._running("truth")
        objects = list(TASKS[self.task].objects)
        return Truth(
            self.task,
            self._robot.get_ee_position(),
            self._robot.get_ee_velocity(),
            float(self._robot.get_fingers_width()),
            np.array([self._sim.get_base_position(name) for name in objects]).reshape(-1, 3),
            self._goal.get_goal().reshape(-1, 3),
            np.array([self._sim.get_base_velocity(name) for name in objects]).reshape(-1, 3),
        )

    def joints_towards(self, displacement: np.ndarray) -> np.ndarray:
        """By how much (7,), rad, the joints would turn to move the hand by `displacement` (3,), cm; not limited."""
        self._running("joints_towards")
        target = self._robot.ee_displacement_to_target_arm_angles(np.asarray(displacement, float) / CARTESIAN.high[0])
        return target - np.array([self._robot.get_joint_angle(joint) for joint in range(7)])

    def render(self) -> np.ndarray:
        """The first camera's picture of the present state, uint8 (H, W, 3)."""
        self._running("render")
        if not self._views:
            raise ValueError("PandaGym: there is no camera to render from; name one in cameras")
        return self._picture(self._views[0])

    def close(self) -> None:
        """End the simulation; the environment can be reset again."""
        if self._sim is not None:
            self._sim.close()
        self._sim = self._robot = self._goal = self._renderer = None

    def _running(self, what: str) -> None:
        if self._goal is None:
            raise ValueError(f"PandaGym: call reset before {what}")

    def _begin(self, name: str, seed: int) -> None:
        """An empty simulation, the robot, the scene; then panda-gym's own reset of both."""
        task = TASKS[name]
        if self._sim is None:
            self._sim = connect()
        sim, client = self._sim, self._sim.physics_client
        client.resetSimulation()
        client.setTimeStep(sim.timestep)
        client.setGravity(0, 0, -9.81)
        sim._bodies_idx.clear()
        control = "ee" if self._control == "cartesian" else "joints"
        base = np.array([-0.6, 0.0, 0.0])
        self._robot = load("panda_gym.envs.robots.panda").Panda(sim, task.shut, base, control)
        more = {"get_ee_position": self._robot.get_ee_position} if name == "reach" else {}
        self._goal = getattr(load(f"panda_gym.envs.tasks.{task.module}"), task.name)(sim, **more)
        self._goal.np_random, _ = seeding.np_random(seed)
        self._robot.reset()
        self._goal.reset()
        self._drawn = drawn = self._perturbations.of(name, seed)
        self._instruction = drawn.instruction(instructions()[name], rephrased()[name])
        if np.any(drawn.start()):
            self._move_hand(drawn.start())
        self._dress(task, drawn)
        self._renderer = TinyRenderer(client, sim._bodies_idx["panda"])

    def _move_hand(self, offset: np.ndarray) -> None:
        target = self._robot.get_ee_position() + offset
        for _ in range(20):  # PyBullet's inverse kinematics goes a part of the way each time
            angles = self._robot.inverse_kinematics(self._robot.ee_link, target, NEUTRAL_TURN)
            self._robot.set_joint_angles(np.concatenate([angles[:7], [0.0, 0.0]]))

    def _dress(self, task: _Task, drawn: Drawn) -> None:
        """Colours and distractors, which no physics notices."""
        client, bodies = self._sim.physics_client, self._sim._bodies_idx
        colours = {name: drawn.colour(name, colour) for name, colour in {**task.objects, **task.goals}.items()}
        colours |= {name: drawn.colour(name, usual, True) for name, usual in (("table", TABLE), ("plane", FLOOR))}
        for name, colour in colours.items():
            client.changeVisualShape(bodies[name], -1, rgbaColor=[*colour, 1.0])
        truth = self.truth()
        clear = [*truth.objects, *truth.goals]
        for thing in drawn.distractors((-0.2, -0.24), (0.22, 0.24), clear):
            self._lay(client, thing.shape, thing.size, thing.colour, thing.place)

    @staticmethod
    def _lay(client: Any, shape: str, size: float, colour: Sequence[float], place: Sequence[float]) -> None:
        kinds = {"box": client.GEOM_BOX, "ball": client.GEOM_SPHERE, "cylinder": client.GEOM_CYLINDER}
        extent: dict[str, Any] = {"halfExtents": [size] * 3} if shape == "box" else {"radius": size}
        if shape == "cylinder":
            extent["length"] = 2 * size
        look = client.createVisualShape(kinds[shape], rgbaColor=[*colour, 1.0], **extent)
        client.createMultiBody(0, -1, look, [*place, size])

    def _achieved(self) -> np.ndarray:
        return self._goal.get_achieved_goal().astype(np.float32)  # as panda-gym's environments compare it

    def _succeeded(self) -> bool:
        return bool(self._goal.is_success(self._achieved(), self._goal.get_goal()))

    def _bounded(self, action: np.ndarray) -> np.ndarray:
        action = np.asarray(action, dtype=np.float32)
        where = f"at step {self._steps} of task {self.task}"
        if action.shape != self._low.shape:
            names = ", ".join(self.action_spec.names)
            raise ValueError(f"an action is {self.action_spec.dim} numbers ({names}), got shape {action.shape}")
        if not np.isfinite(action).all():
            raise ValueError(f"action {action.tolist()} {where} is not finite")
        inside = np.clip(action, self._low, self._high)
        if not np.array_equal(inside, action):
            if self.out_of_bounds == "error":
                raise ValueError(
                    f"action {action.tolist()} {where} is out of bounds, which are ± {self._high.tolist()}"
                )
            self._clipped += 1
        return inside

    def _observe(self) -> dict[str, Any]:
        robot = self._robot
        parts = [robot.get_ee_position(), robot.get_ee_velocity(), [robot.get_fingers_width()]]
        if self._control == "joints":
            parts.append([robot.get_joint_angle(joint) for joint in range(7)])
        observation: dict[str, Any] = {STATE: np.concatenate(parts).astype(np.float32), TASK: self._instruction}
        if self._with_truth:
            truth = np.zeros(TRUTH)
            things, goals = self._goal.get_obs(), self._goal.get_goal()
            truth[: len(things)] = things
            truth[OBJECTS * OBJECT : OBJECTS * OBJECT + len(goals)] = goals
            observation[ENVIRONMENT_STATE] = truth.astype(np.float32)
        if self._with_pixels:
            observation |= {IMAGES + view.name: self._picture(view) for view in self._views}
        return observation

    def _picture(self, view: View) -> np.ndarray:
        assert self._renderer is not None
        return self._renderer.draw(view, self._drawn.camera(view.name), self._drawn.light())

    def _space(self, state: int) -> spaces.Dict:
        texts = [*instructions().values(), *(text for texts in rephrased().values() for text in texts)]
        parts: dict[str, spaces.Space] = {
            STATE: spaces.Box(-np.inf, np.inf, (state,), np.float32),
            TASK: spaces.Text(max(map(len, texts)), charset="".join(sorted(set("".join(texts))))),
        }
        if self._with_truth:
            parts[ENVIRONMENT_STATE] = spaces.Box(-np.inf, np.inf, (TRUTH,), np.float32)
        if self._with_pixels:
            for view in self._views:
                parts[IMAGES + view.name] = spaces.Box(0, 255, (view.height, view.width, 3), np.uint8)
        return spaces.Dict(parts)


def _one_of(name: str, value: str, options: Sequence[str]) -> None:
    if value not in options:
        raise ValueError(f"PandaGym: {name} is one of {', '.join(options)}, got '{value}'")
