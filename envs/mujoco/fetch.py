"""The Fetch robot's four tasks (Plappert et al. 2018, arXiv 1802.09464; v4 of gymnasium-robotics) from pixels or state.

A 7-joint arm with a parallel gripper that always points down; a mocap body that it is welded to pulls the hand. In
reach, push and slide the gripper is held shut, and the fourth number of an action does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from embodied.spec import ActionSpec, StateSpec
from envs.base import Body, texts
from envs.mujoco.gymnasium_robotics import GymnasiumRobotics
from envs.mujoco.scene import Ground, Viewpoint
from envs.perturbations import KINDS

BODY = Body(
    name="fetch",
    action=ActionSpec(
        names=("x", "y", "z", "gripper"),
        units=("5 cm", "5 cm", "5 cm", "1"),
        low=(-1.0,) * 4,
        high=(1.0,) * 4,
        control="delta",
        space="cartesian",
        frame="world",
        gripper=3,
        gripper_closed=-1,
    ),
    state=StateSpec(names=("x", "y", "z", "gripper_opening"), units=("m",) * 4, frame="world"),
    truth=(
        "object_x",
        "object_y",
        "object_z",
        "object_roll",
        "object_pitch",
        "object_yaw",
        "goal_x",
        "goal_y",
        "goal_z",
    ),
    rate=25.0,
)


class Fetch(GymnasiumRobotics):
    """One or several Fetch tasks; implements `embodied.interaction.Environment`.

    An action moves the point that pulls the hand by up to 5 cm along each axis of the world, and the fingers further
    open (+1) or shut (-1). The state is the hand's position and how far the fingers are apart. The truth is the
    object's position (m) and Euler angles (rad; zeros in reach, which has none) and the goal's position. The reward is
    -1 until hand or object is within 5 cm of the goal, then 0. Arguments: see `MujocoBody`.
    """

    instructions: ClassVar[Mapping[str, str]] = {
        "reach": "move the gripper to the red sphere",
        "push": "push the block to the red sphere",
        "pick-place": "pick up the block and bring it to the red sphere",
        "slide": "hit the puck so that it slides to the red sphere",
    }
    official: ClassVar[Mapping[str, str]] = {
        "reach": "FetchReach-v4",
        "push": "FetchPush-v4",
        "pick-place": "FetchPickAndPlace-v4",
        "slide": "FetchSlide-v4",
    }
    rephrased = texts(__file__, "rephrased")
    default_steps = 50
    camera_names = ("front", "side", "external_camera_0")
    perturbable = KINDS
    surroundings = ("floor_mat", "table_mat")

    def body(self, task: str) -> Body:
        return BODY

    def viewpoints(self, task: str) -> Mapping[str, Viewpoint]:
        # slide's puck goes to the far half of a longer table
        # from the front and above, the arm hides the goal least: in 1 of 25 starts, 7 from the side
        middle = (1.4, 0.75, 0.45) if task == "slide" else (1.32, 0.75, 0.5)
        distance = 1.6 if task == "slide" else 0.9
        return {"front": Viewpoint(middle, distance, 180, -50), "side": Viewpoint(middle, distance, 90, -30)}

    def begun(self) -> None:
        """Draw the goal where it is, as the library does when it renders, but without another solver step."""
        if "start" in self.drawn.levels:
            self._move_hand(self.drawn.start())
        sim = self.sim
        site = sim.model.site("target0").id
        offset = sim.data.site_xpos[site] - sim.model.site_pos[site]
        sim.model.site_pos[site] = sim.goal - offset
        sim.data.site_xpos[site] = sim.goal

    def _move_hand(self, offset: np.ndarray) -> None:
        """By an offset (3,), m, in a few actions; not into the table, nor where the object is."""
        hand, thing = self.seen["observation"][:3], self.seen["achieved_goal"]
        offset[2] = max(offset[2], 0.41 - hand[2])
        if self.sim.has_object and np.linalg.norm((hand + offset - thing)[:2]) < 0.07:
            offset[:2] *= -1
        target = hand + offset
        for _ in range(8):
            rest = target - self.seen["observation"][:3]
            self.seen, *_ = self.sim.step(np.append(rest / 0.05, 0.0))  # an action of 1 is 5 cm

    def ground(self) -> Ground:
        low, high = ((0.8, 0.4), (1.8, 1.1)) if self.task == "slide" else ((1.1, 0.45), (1.5, 1.05))
        thing = [self.seen["achieved_goal"]] if self.sim.has_object else []
        shape = "box" if self.task == "slide" else "cylinder"  # neither the goal's nor the object's
        return Ground(low, high, 0.4, [self.sim.goal, *thing], shapes=(shape,))

    def succeeded(self, info: Mapping[str, Any]) -> bool:
        return bool(info["is_success"])

    def feel(self) -> np.ndarray:
        seen = self.seen["observation"]
        fingers = seen[9:11] if self.sim.has_object else seen[3:5]
        return np.append(seen[:3], fingers.sum())

    def truth(self) -> np.ndarray:
        seen = self.seen["observation"]
        thing = np.concatenate([seen[3:6], seen[11:14]]) if self.sim.has_object else np.zeros(6)
        return np.concatenate([thing, self.sim.goal])
