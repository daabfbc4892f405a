"""Franka Kitchen (Gupta et al. 2019, arXiv 1910.11956; v1 of gymnasium-robotics): four things to do in one episode.

The protocols are D4RL's (Fu et al. 2020, arXiv 2004.07219). Success is that all four were done, in any order;
`info["completed"]` and the return say how many were. The library starts every episode in the same pose, so that a seed
decides nothing but the noise on what the robot feels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from embodied.spec import ActionSpec, StateSpec
from envs.base import Body, texts
from envs.mujoco.gymnasium_robotics import GymnasiumRobotics
from envs.mujoco.scene import Ground, Viewpoint

JOINTS = (*(f"joint_{i}" for i in range(1, 8)), "finger_right", "finger_left")
PROTOCOLS: Mapping[str, tuple[str, ...]] = {
    "complete": ("microwave", "kettle", "light switch", "slide cabinet"),
    "mixed": ("microwave", "kettle", "bottom burner", "light switch"),
}
"""What each protocol asks for: D4RL's kitchen-complete (and -partial), and kitchen-mixed."""

THINGS = (
    *(f"{part}_{i}" for i in range(1, 5) for part in ("knob", "burner")),
    *("light_switch", "light", "slide_cabinet", "hinge_cabinet_left", "hinge_cabinet_right", "microwave"),
    *("kettle_x", "kettle_y", "kettle_z", "kettle_qw", "kettle_qx", "kettle_qy", "kettle_qz"),
)
"""Positions of the kitchen's joints (rad; m for the slide cabinet), and the kettle's pose (m, quaternion w first)."""

BODY = Body(
    name="franka",
    action=ActionSpec(
        names=JOINTS,
        units=("2 rad/s",) * 7 + ("2 m/s",) * 2,
        low=(-1.0,) * 9,
        high=(1.0,) * 9,
        control="velocity",
        space="joint",
    ),
    state=StateSpec(
        names=JOINTS + tuple(f"velocity_{joint}" for joint in JOINTS),
        units=("rad",) * 7 + ("m",) * 2 + ("rad/s",) * 7 + ("m/s",) * 2,
    ),
    truth=THINGS,
    rate=12.5,
)


class Kitchen(GymnasiumRobotics):
    """Franka Kitchen under one or both protocols; implements `embodied.interaction.Environment`.

    An action is joint velocities, as fractions of 2 rad/s, cut by the library to what each joint can do; both fingers
    open with positive numbers. The state is the joints' positions and velocities with the library's sensor noise. The
    truth is `THINGS`, without noise. The reward of a step is how many things were newly done in it. Arguments: see
    `MujocoBody`.
    """

    instructions: ClassVar[Mapping[str, str]] = {
        "complete": "open the microwave, move the kettle to the back burner, turn on the light, slide open the cabinet",
        "mixed": "open the microwave, move the kettle to the back burner, turn on the bottom burner and the light",
    }
    official: ClassVar[Mapping[str, str]] = dict.fromkeys(PROTOCOLS, "FrankaKitchen-v1")
    rephrased = texts(__file__, "rephrased")
    default_steps = 280
    camera_names = ("front",)
    perturbable = ("camera", "lighting", "colour", "distractors", "instruction")
    surroundings = ("MatPlane", "wall_white", "wall_blue", "counter_marble", "counter_blue")

    def body(self, task: str) -> Body:
        return BODY

    def options(self, task: str) -> dict[str, Any]:
        return {"tasks_to_complete": list(PROTOCOLS[task]), "terminate_on_tasks_completed": False}

    def viewpoints(self, task: str) -> Mapping[str, Viewpoint]:
        return {"front": Viewpoint((-0.2, 0.5, 2.0), 2.2, 70, -35)}  # that of the library's own pictures

    def ground(self) -> Ground:
        return Ground((-0.95, -0.25), (-0.6, 0.25), 1.6, gap=0.08)  # the worktop in front of the microwave

    def succeeded(self, info: Mapping[str, Any]) -> bool:
        return len(info["episode_task_completions"]) == len(PROTOCOLS[self.task])

    def also(self) -> dict[str, Any]:
        """`completed`: how many of the four were done so far."""
        return {"completed": len(self.sim.episode_task_completions)}

    def feel(self) -> np.ndarray:
        return self.seen["observation"][:18]

    def truth(self) -> np.ndarray:
        return self.sim.data.qpos[9:].copy()
