"""A mobile base with an arm: drive to a table, pick the cube that the instruction names, put it into a bin.

Neither base nor arm can do it alone: cubes and bin are out of the arm's reach from anywhere the base could stay. The
model is `mobile_arm.xml`: a base that drives in any direction, an arm of four joints with a parallel gripper, a camera
on a mast and one on the wrist.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from embodied.spec import ActionSpec, StateSpec
from envs.base import Body, texts
from envs.mujoco.opengl import load_mujoco
from envs.mujoco.scene import Ground, MujocoBody, Snapshot
from envs.perturbations import KINDS

BASE = ("base_x", "base_y", "base_yaw")
ARM = ("pan", "shoulder", "elbow", "wrist")
COLOURS = ("red", "green", "blue")
RATE = 20.0
BASE_SPEED, TURN_SPEED, ARM_SPEED = 0.5, 1.0, 1.0
"""What an action of these bounds asks for: m/s, rad/s, rad/s."""

AXIS, SHOULDER = 0.1, 0.45
"""How far ahead of the base's middle the arm turns, and how high its shoulder is, metres."""
UPPER_ARM, FOREARM, HAND = 0.32, 0.3, 0.14
"""Lengths from shoulder to elbow, elbow to wrist, wrist to the point between the fingertips, metres."""
FINGER = 0.04
"""How far each finger opens, metres."""

BODY = Body(
    name="mobile-arm",
    action=ActionSpec(
        names=("forward", "left", "turn", *ARM, "gripper"),
        units=("m/s", "m/s", "rad/s", "rad/s", "rad/s", "rad/s", "rad/s", "1"),
        low=(-BASE_SPEED, -BASE_SPEED, -TURN_SPEED, *(-ARM_SPEED,) * 4, -1.0),
        high=(BASE_SPEED, BASE_SPEED, TURN_SPEED, *(ARM_SPEED,) * 4, 1.0),
        control="velocity",
        space="base_and_joint",
        frame="base",
        gripper=7,
        gripper_closed=1,
    ),
    state=StateSpec(
        names=(*BASE, *ARM, "gripper_opening"),
        units=("m", "m", "rad", "rad", "rad", "rad", "rad", "m"),
        frame="world",
    ),
    truth=(*(f"{colour}_{axis}" for colour in COLOURS for axis in "xyz"), "bin_x", "bin_y", "wanted_cube"),
    rate=RATE,
)


def joints_for(ahead: float, left: float, height: float) -> np.ndarray:
    """Joint angles (4,) that put the fingertips somewhere, the hand pointing straight down and the elbow up.

    Args:
        ahead, left: metres from the arm's own axis, in the base's frame.
        height: metres above the floor.

    A point out of reach gets the angles of the nearest one on the way to it.
    """
    radius, up = np.hypot(ahead, left), height + HAND - SHOULDER
    distance = np.clip(np.hypot(radius, up), 0.08, UPPER_ARM + FOREARM - 1e-3)
    elbow = np.arccos((distance**2 - UPPER_ARM**2 - FOREARM**2) / (2 * UPPER_ARM * FOREARM))
    lean = np.arctan2(FOREARM * np.sin(elbow), UPPER_ARM + FOREARM * np.cos(elbow))
    shoulder = np.arctan2(radius, up) - lean
    return np.array([np.arctan2(left, ahead), shoulder, elbow, np.pi - shoulder - elbow])


class MobileArm(MujocoBody):
    """Pick the named cube and put it into the bin; implements `embodied.interaction.Environment`.

    The first three numbers of an action are the base's velocity in its own frame (m/s ahead, m/s to the left, rad/s
    counter-clockwise), the next four the arm's joint velocities (rad/s), the last how far the gripper is shut: -1 is
    open, +1 is shut with the fingers' whole force. The state is where the base is (as its odometry would say, from the
    room's origin), the joints' angles and the fingers' distance. The truth is the cubes' and the bin's positions (m)
    and which cube is wanted (0 red, 1 green, 2 blue). The reward is 1 in steps that end with that cube in the bin.
    Which cube, where the cubes lie, on which side of the table the bin stands and where the robot starts are drawn
    from the seed. Arguments: see `MujocoBody`.
    """

    instructions: ClassVar[Mapping[str, str]] = {"pick-place": "put the {colour} cube into the bin"}
    rephrased = texts(__file__, "rephrased")
    default_steps = 300
    camera_names = ("head", "wrist", "overview")
    perturbable = KINDS
    surroundings = ("floor", "table")
    named_by_colour = COLOURS

    def body(self, task: str) -> Body:
        return BODY

    def instruction(self) -> str:
        return self.words.format(colour=self.wanted)

    def begin(self, task: str, seed: int) -> None:
        if not hasattr(self, "_model"):
            self._mujoco = load_mujoco()
            self._model = self._mujoco.MjModel.from_xml_path(str(Path(__file__).with_name("mobile_arm.xml")))
            self.place(self._model)
            self._data = self._mujoco.MjData(self._model)
            self._snapshot = Snapshot(self._model, self._data)
            self._substeps = round(1 / RATE / self._model.opt.timestep)
        self._snapshot.restore()
        random, data = np.random.default_rng(seed), self._data
        self.wanted = COLOURS[random.integers(3)]
        for y, colour in zip((-0.22, 0.0, 0.22), random.permutation(COLOURS), strict=True):
            angle = random.uniform(-np.pi / 4, np.pi / 4)
            x, y = random.uniform(0.97, 1.1), y + random.uniform(-0.05, 0.05)
            data.joint(colour).qpos = [x, y, 0.423, np.cos(angle / 2), 0, 0, np.sin(angle / 2)]
        self.bin = np.array([1.1, random.choice([-1.0, 1.0]) * random.uniform(0.85, 1.05)])
        data.mocap_pos[0, :2] = self.bin
        data.qpos[self._addresses(BASE)] = random.uniform([-0.3, -0.3, -0.4], [0.1, 0.3, 0.4])
        ahead, left, up = self.drawn.start()  # in the base's frame
        self._target = joints_for(0.25 + ahead, left, 0.6 + up)
        data.qpos[self._addresses(ARM)] = self._target
        data.qpos[self._addresses(("finger_left", "finger_right"))] = FINGER
        self._mujoco.mj_forward(self._model, data)

    def ground(self) -> Ground:
        cubes = [self._data.body(colour).xpos for colour in COLOURS]
        return Ground((0.95, -0.38), (1.25, 0.38), 0.4, cubes, gap=0.08, shapes=("ball", "cylinder"))

    def advance(self, action: np.ndarray) -> tuple[float, bool]:
        data, action = self._data, action.astype(np.float64)
        joints = data.qpos[self._addresses(ARM)]
        # a target that runs ahead of a blocked arm would store the way it cannot go
        self._target = np.clip(self._target + action[3:7] / RATE, joints - 0.15, joints + 0.15)
        data.ctrl[3:7] = self._target = np.clip(self._target, *self._model.jnt_range[self._ids(ARM)].T)
        data.ctrl[7:] = FINGER * (1 - action[7]) / 2
        for _ in range(self._substeps):
            yaw = data.joint("base_yaw").qpos[0]
            cos, sin = np.cos(yaw), np.sin(yaw)
            data.ctrl[:3] = cos * action[0] - sin * action[1], sin * action[0] + cos * action[1], action[2]
            self._mujoco.mj_step(self._model, data)
        self._mujoco.mj_kinematics(self._model, data)  # so that pictures and positions are those of this moment
        self._mujoco.mj_camlight(self._model, data)
        success = self._in_bin(self.wanted)
        return float(success), success

    def feel(self) -> np.ndarray:
        opening = self._data.qpos[self._addresses(("finger_left", "finger_right"))].sum()
        return np.append(self._data.qpos[self._addresses((*BASE, *ARM))], opening)

    def truth(self) -> np.ndarray:
        cubes = [self._data.body(colour).xpos for colour in COLOURS]
        return np.concatenate([*cubes, self.bin, [COLOURS.index(self.wanted)]])

    def also(self) -> dict[str, Any]:
        """`wrong_cubes`: how many cubes that nobody asked for are in the bin."""
        return {"wrong_cubes": sum(self._in_bin(colour) for colour in COLOURS if colour != self.wanted)}

    def fingertips(self) -> np.ndarray:
        """The point between the fingertips, (3,) metres, world frame."""
        return self._data.site("grip").xpos.copy()

    def scene(self) -> tuple[Any, Any]:
        return self._model, self._data

    def _in_bin(self, colour: str) -> bool:
        cube = self._data.body(colour).xpos
        return bool(np.abs(cube[:2] - self.bin).max() < 0.13 and cube[2] < 0.35)

    def _ids(self, names: tuple[str, ...]) -> list[int]:
        return [self._model.joint(name).id for name in names]

    def _addresses(self, names: tuple[str, ...]) -> np.ndarray:
        return self._model.jnt_qposadr[self._ids(names)]
