"""Adroit's four tasks for a 24-joint hand (Rajeswaran et al. 2018, arXiv 1709.10087; v1 of gymnasium-robotics).

The hand hangs on an arm with as many joints as the task needs, so each task is a body of its own: an environment is
made for one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from embodied.spec import ActionSpec, StateSpec
from envs.base import Body, texts
from envs.mujoco.gymnasium_robotics import GymnasiumRobotics
from envs.mujoco.scene import Ground, Viewpoint


class Adroit(GymnasiumRobotics):
    """One Adroit task; implements `embodied.interaction.Environment`.

    An action gives each joint's target: -1 and 1 are the ends of its actuator's range. The state is the actuated
    joints' positions (m where they slide, else rad). The truth is the library's own observation, which repeats most
    joints. The reward is the library's dense one. Arguments: see `MujocoBody`.
    """

    instructions: ClassVar[Mapping[str, str]] = {
        "door": "turn the latch and open the door",
        "hammer": "pick up the hammer and drive the nail into the board",
        "pen": "turn the pen in the hand until it points like the green pen",
        "relocate": "pick up the ball and bring it to the green sphere",
    }
    official: ClassVar[Mapping[str, str]] = {
        "door": "AdroitHandDoor-v1",
        "hammer": "AdroitHandHammer-v1",
        "pen": "AdroitHandPen-v1",
        "relocate": "AdroitHandRelocate-v1",
    }
    rephrased = texts(__file__, "rephrased")
    default_steps: ClassVar[Mapping[str, int]] = dict.fromkeys(official, 200)
    camera_names = ("front", "fixed", "vil_camera")
    perturbable = ("camera", "lighting", "colour", "distractors", "instruction")
    surroundings = ("groundplane", "tablecube", "table")

    def body(self, task: str) -> Body:
        model = self.official_environment(task).model
        joints = model.actuator_trnid[:, 0]
        slides = model.jnt_type[joints] == 2  # mjJNT_SLIDE
        names = tuple(model.actuator(i).name.removeprefix("A_") for i in range(model.nu))
        units = tuple("m" if slide else "rad" for slide in slides)
        size = self.official_environment(task).observation_space.shape[0]
        return Body(
            name=f"adroit-{task}",
            action=ActionSpec(
                names=names,
                units=("1",) * len(names),
                low=(-1.0,) * len(names),
                high=(1.0,) * len(names),
                control="absolute",
                space="joint",
            ),
            state=StateSpec(names=names, units=units),
            truth=tuple(f"observation_{i}" for i in range(size)),
            rate=100.0,
        )

    def viewpoints(self, task: str) -> Mapping[str, Viewpoint]:
        if task == "pen":
            return {"front": Viewpoint((0.0, -0.1, 0.2), 0.7, 135, -40)}
        return {"front": Viewpoint((0.0, 0.05, 0.25), 1.3, 90, -30)}

    def ground(self) -> Ground:
        data = self.sim.data
        things = {"door": ("frame",), "hammer": ("Object", "nail_board"), "pen": (), "relocate": ("Object",)}
        clear = [data.body(name).xpos for name in things[self.task]]
        if self.task == "relocate":
            clear.append(data.site("target").xpos)
        return Ground((-0.4, -0.4), (0.4, 0.2), 0.0, clear, gap=0.12)

    def succeeded(self, info: Mapping[str, Any]) -> bool:
        return bool(info["success"])

    def feel(self) -> np.ndarray:
        model = self.sim.model
        return self.sim.data.qpos[model.jnt_qposadr[model.actuator_trnid[:, 0]]]

    def truth(self) -> np.ndarray:
        return np.asarray(self.seen)
