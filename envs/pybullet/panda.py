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
from typing import Any

import numpy as np
from gymnasium.utils import seeding

from embodied.spec import ActionSpec, StateSpec
from envs.base import Body, SimulatedBody, texts
from envs.perturbations import KINDS
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
OBJECT, OBJECTS = 12, 2
"""An object's position, rotation (Euler angles), velocity and angular velocity; at most two objects, a goal each."""
_PARTS = ("x", "y", "z", "roll", "pitch", "yaw", "vx", "vy", "vz", "wx", "wy", "wz")
TRUTH = (
    *(f"object{i + 1}_{part}" for i in range(OBJECTS) for part in _PARTS),
    *(f"goal{i + 1}_{axis}" for i in range(OBJECTS) for axis in "xyz"),
)
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


@dataclass(frozen=True)
class Situation:
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


class PandaGym(SimulatedBody):
    """One or several of panda-gym's tasks; implements `embodied.interaction.Environment`.

    The state is the hand's position (m) and velocity (m/s) and the gripper's opening (m); with `control=joints`, it
    goes on with the seven joint angles (rad). The truth is two objects' position (m), rotation (rad, Euler angles),
    velocity (m/s) and angular velocity (rad/s), then their two goals' (m); zeros for those a task does not have. The
    reward is panda-gym's sparse one: 0 at the goal and -1 elsewhere.

    Args:
        tasks: of `TASKS`; None for all five.
        cameras: of `CAMERAS`, in order.
        height, width: pixels of each picture.
        control: `cartesian`, see `CARTESIAN`, or `joints`, see `JOINTS`.
        max_steps: after how many steps an episode is truncated; panda-gym's own are 50, and 100 for stack.
        observe, stop_on_success, out_of_bounds, perturb, render_mode: see `SimulatedBody`.

    Raises:
        ValueError: an unknown task, camera, mode or perturbation; panda-gym is not installed.
    """

    instructions = texts(__file__, "tasks")
    rephrased = texts(__file__, "rephrased")
    default_steps = 100
    perturbable = KINDS

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
        if control not in ("cartesian", "joints"):
            raise ValueError(f"PandaGym: control is one of cartesian, joints, got '{control}'")
        self._control = control
        self._views = views_of(cameras, CAMERAS, height, width)
        seen = [view.camera("goal=red") for view in self._views]
        super().__init__(tasks, seen, observe, max_steps, stop_on_success, out_of_bounds, perturb, render_mode)
        load("panda_gym")
        self._sim: Any = None
        self._robot: Any = None
        self._goal: Any = None  # panda-gym's task object
        self._renderer: TinyRenderer | None = None

    def body(self, task: str) -> Body:
        action, state = (CARTESIAN, HAND_STATE) if self._control == "cartesian" else (JOINTS, JOINT_STATE)
        return Body("panda", action, state, TRUTH, RATE)

    def begin(self, task: str, seed: int) -> None:
        """An empty simulation, the robot, the scene; then panda-gym's own reset of both."""
        this = TASKS[task]
        if self._sim is None:
            self._sim = connect()
        sim, client = self._sim, self._sim.physics_client
        client.resetSimulation()
        client.setTimeStep(sim.timestep)
        client.setGravity(0, 0, -9.81)
        sim._bodies_idx.clear()
        control = "ee" if self._control == "cartesian" else "joints"
        base = np.array([-0.6, 0.0, 0.0])
        self._robot = load("panda_gym.envs.robots.panda").Panda(sim, this.shut, base, control)
        more = {"get_ee_position": self._robot.get_ee_position} if task == "reach" else {}
        self._goal = getattr(load(f"panda_gym.envs.tasks.{this.module}"), this.name)(sim, **more)
        self._goal.np_random, _ = seeding.np_random(seed)
        self._robot.reset()
        self._goal.reset()
        if np.any(self.drawn.start()):
            self._move_hand(self.drawn.start())
        self._paint(this)
        self._renderer = TinyRenderer(client, sim._bodies_idx["panda"])

    def advance(self, action: np.ndarray) -> tuple[float, bool]:
        asked = action / self._high  # panda-gym's own actions are within [-1, 1]
        self._robot.set_action(asked[:-1] if TASKS[self.task].shut else asked)
        self._sim.step()
        reward = self._goal.compute_reward(self._achieved(), self._goal.get_goal(), {})
        return float(reward), self.solved()

    def solved(self) -> bool:
        return bool(self._goal.is_success(self._achieved(), self._goal.get_goal()))

    def feel(self) -> np.ndarray:
        robot = self._robot
        parts = [robot.get_ee_position(), robot.get_ee_velocity(), [robot.get_fingers_width()]]
        if self._control == "joints":
            parts.append([robot.get_joint_angle(joint) for joint in range(7)])
        return np.concatenate(parts)

    def truth(self) -> np.ndarray:
        truth = np.zeros(len(TRUTH))
        things, goals = self._goal.get_obs(), self._goal.get_goal()
        truth[: len(things)] = things
        truth[OBJECTS * OBJECT : OBJECTS * OBJECT + len(goals)] = goals
        return truth

    def pictures(self) -> dict[str, np.ndarray]:
        assert self._renderer is not None
        draw, light = self._renderer.draw, self.drawn.light()
        return {view.name: draw(view, self.drawn.camera(view.name), light) for view in self._views}

    def situation(self) -> Situation:
        """What is where in the present state: what scripted experts read.

        Raises:
            ValueError: before the first reset.
        """
        self.running("situation")
        return self._situation()

    def _situation(self) -> Situation:
        objects = list(TASKS[self.task].objects)
        return Situation(
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
        self.running("joints_towards")
        target = self._robot.ee_displacement_to_target_arm_angles(np.asarray(displacement, float) / CARTESIAN.high[0])
        return target - np.array([self._robot.get_joint_angle(joint) for joint in range(7)])

    def close(self) -> None:
        """End the simulation; the environment can be reset again."""
        super().close()
        if self._sim is not None:
            self._sim.close()
        self._sim = self._robot = self._goal = self._renderer = None

    def _move_hand(self, offset: np.ndarray) -> None:
        target = self._robot.get_ee_position() + offset
        for _ in range(20):  # PyBullet's inverse kinematics goes a part of the way each time
            angles = self._robot.inverse_kinematics(self._robot.ee_link, target, NEUTRAL_TURN)
            self._robot.set_joint_angles(np.concatenate([angles[:7], [0.0, 0.0]]))

    def _paint(self, task: _Task) -> None:
        """Colours and distractors, which no physics notices; goals are red in standard episodes too."""
        client, bodies, drawn = self._sim.physics_client, self._sim._bodies_idx, self.drawn
        colours = {name: drawn.colour(name, colour) for name, colour in {**task.objects, **task.goals}.items()}
        colours |= {name: drawn.colour(name, usual, True) for name, usual in (("table", TABLE), ("plane", FLOOR))}
        for name, colour in colours.items():
            client.changeVisualShape(bodies[name], -1, rgbaColor=[*colour, 1.0])
        now = self._situation()
        clear = [*now.objects, *now.goals]
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
