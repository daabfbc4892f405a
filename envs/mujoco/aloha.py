"""ALOHA's two simulated tasks for two arms (Zhao et al. 2023, arXiv 2304.13705), from the package gym-aloha.

Physics and rewards are the package's, so that an episode is the official one of the same seed. Its three pictures of
640 x 480 in every step are not taken; cameras are drawn here, in the size that is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np

from embodied.spec import ActionSpec, StateSpec
from envs.base import Body, texts
from envs.mujoco.opengl import load_mujoco
from envs.mujoco.scene import MujocoBody, Snapshot

ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
NAMES = tuple(f"{side}_{part}" for side in ("left", "right") for part in (*ARM, "gripper"))
POSE = ("x", "y", "z", "qw", "qx", "qy", "qz")
UNITS = (("rad",) * 6 + ("1",)) * 2
LOW = (-3.14158, -1.85005, -1.76278, -3.14158, -1.8675, -3.14158)
HIGH = (3.14158, 1.25664, 1.6057, 3.14158, 2.23402, 3.14158)
"""Where each joint of the ViperX ends, rad."""


def _body(things: tuple[str, ...]) -> Body:
    low, high = (*LOW, 0.0) * 2, (*HIGH, 1.0) * 2
    action = ActionSpec(names=NAMES, units=UNITS, low=low, high=high, control="absolute", space="joint")
    truth = tuple(f"{thing}_{part}" for thing in things for part in POSE)
    return Body("aloha", action, StateSpec(names=NAMES, units=UNITS), truth, 50.0)


class Aloha(MujocoBody):
    """One of ALOHA's tasks; implements `embodied.interaction.Environment`.

    An action is both arms' joint targets (rad) and how far each gripper is to be open, from 0 (shut) to 1. The state
    is the same of what is. (There being two grippers, `embodiment.action.gripper` names none.) The truth is the pose of
    each object (m, quaternion w first). The reward is the package's, 0 to 4 for how far things have come; 4 is success.
    Arguments: see `MujocoBody`; `tasks` is one of the two, since what there is to know differs.
    """

    instructions: ClassVar[Mapping[str, str]] = {
        "transfer-cube": "pick up the cube with the right arm and hand it to the left arm",
        "insertion": "pick up the peg and the socket and insert the peg into the socket",
    }
    rephrased = texts(__file__, "rephrased")
    default_steps = 300
    camera_names = ("top", "angle", "front_close", "left_wrist", "right_wrist")
    perturbable = ("lighting", "colour", "instruction")  # its cameras turn to what they look at, wherever they are
    surroundings = ("table",)

    sim: Any = None
    seen: Any = None

    def body(self, task: str) -> Body:
        return _body(("cube",) if task == "transfer-cube" else ("peg", "socket"))

    def begin(self, task: str, seed: int) -> None:
        self.sim, snapshot = self._compile(task)
        snapshot.restore()
        self.seen, _ = self.sim.reset(seed=seed)

    def advance(self, action: np.ndarray) -> tuple[float, bool]:
        self.seen, reward, _, _, info = self.sim.step(action.astype(np.float64))
        return float(reward), bool(info["is_success"])

    def feel(self) -> np.ndarray:
        return np.asarray(self.seen["qpos"])

    def truth(self) -> np.ndarray:
        return np.asarray(self.seen["env_state"])

    def scene(self) -> tuple[Any, Any]:
        physics = self.sim._env.physics
        return physics.model.ptr, physics.data.ptr

    def _compile(self, task: str) -> tuple[Any, Snapshot]:
        made: dict[str, tuple[Any, Snapshot]] = self.__dict__.setdefault("_compiled", {})
        if task not in made:
            sim = _library()(task=task.replace("-", "_"), obs_type="pixels_agent_pos")
            inside = sim._env.task

            def sensors(physics: Any) -> dict[str, np.ndarray]:
                return {"qpos": inside.get_qpos(physics), "env_state": inside.get_env_state(physics)}

            inside.get_observation, sim._format_raw_obs = sensors, lambda raw: raw  # without its pictures
            physics = sim._env.physics
            self.place(physics.model.ptr)
            made[task] = sim, Snapshot(physics.model.ptr, physics.data.ptr)
        return made[task]


@cache
def _library() -> Any:
    load_mujoco()
    try:
        from gym_aloha.env import AlohaEnv
    except ModuleNotFoundError as error:
        raise ValueError(f"gym-aloha is not installed ({error}): pip install -e '.[aloha]'") from None
    return AlohaEnv
