"""PushT (Florence et al. 2021; Chi et al. 2023, arXiv 2303.04137): push a T-shaped block onto its outline, in a plane.

Physics and pictures are those of the package gym-pusht, unchanged; an episode is the official one of the same seed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np

from embodied.building import nearest
from embodied.spec import ActionSpec, Camera, StateSpec
from envs.base import Body, SimulatedBody, texts

SIZE = 512.0
"""The side of the square plane, pixels: the unit of all of its lengths."""

BODY = Body(
    name="pusht",
    action=ActionSpec(
        names=("x", "y"),
        units=("px", "px"),
        low=(0.0, 0.0),
        high=(SIZE, SIZE),
        control="absolute",
        space="cartesian",
        frame="world",
    ),
    state=StateSpec(names=("x", "y"), units=("px", "px"), frame="world"),
    truth=("block_x", "block_y", "block_angle", "goal_x", "goal_y", "goal_angle"),
    rate=10.0,
)


class PushT(SimulatedBody):
    """Push the T; implements `embodied.interaction.Environment`.

    An action is where the round pusher is to go (px; x to the right, y down). The state is where it is. The truth is
    the block's and the goal's position (px) and angle (rad). The reward of a step is the share of the goal that the
    block covers, over 0.95, at most 1; success is a share above 0.95. `info["coverage"]` is that share.

    Args:
        tasks: `push` is the only one.
        cameras: `top` is the only one.
        height, width: pixels of the picture.
        observe, max_steps, stop_on_success, out_of_bounds, render_mode: see `SimulatedBody`.
        perturb: `instruction` is the only kind.

    Raises:
        ValueError: an unknown option; gym-pusht is not installed.
    """

    instructions: ClassVar[Mapping[str, str]] = {"push": "push the gray T onto the green T"}
    rephrased = texts(__file__, "rephrased")
    default_steps = 300

    def __init__(
        self,
        tasks: Sequence[str] | None = None,
        cameras: Sequence[str] = ("top",),
        height: int = 96,
        width: int = 96,
        observe: str = "pixels",
        max_steps: int | None = None,
        stop_on_success: bool = True,
        out_of_bounds: str = "clip",
        perturb: Mapping[str, float] | None = None,
        render_mode: str | None = None,
    ) -> None:
        for name in cameras:
            if name != "top":
                raise ValueError(f"no camera '{name}'{nearest(name, ['top'])}")
        if not (8 <= height <= 4096 and 8 <= width <= 4096):
            raise ValueError(f"a picture of {height} x {width} pixels: height and width are 8 to 4096")
        seen = [Camera(name, height, width, "pygame:gym-pusht") for name in dict.fromkeys(cameras)]
        super().__init__(tasks, seen, observe, max_steps, stop_on_success, out_of_bounds, perturb, render_mode)
        self.sim = _library()(obs_type="state", observation_height=height, observation_width=width)
        self._coverage = 0.0

    def body(self, task: str) -> Body:
        return BODY

    def begin(self, task: str, seed: int) -> None:
        self.sim.reset(seed=seed)  # makes a new physics space
        self._coverage = float(self.sim._get_coverage())

    def advance(self, action: np.ndarray) -> tuple[float, bool]:
        _, reward, _, _, info = self.sim.step(action.astype(np.float64))
        self._coverage = float(info["coverage"])
        return float(reward), bool(info["is_success"])

    def feel(self) -> np.ndarray:
        return np.array(self.sim.agent.position)

    def truth(self) -> np.ndarray:
        return np.array([*self.sim.block.position, self.sim.block.angle, *self.sim.goal_pose])

    def also(self) -> dict[str, Any]:
        return {"coverage": self._coverage}

    def pictures(self) -> dict[str, np.ndarray]:
        return {"top": self.sim._render()}


@cache
def _library() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        from gym_pusht.envs import PushTEnv
    except ModuleNotFoundError as error:
        raise ValueError(f"gym-pusht is not installed ({error}): pip install -e '.[pusht]'") from None
    return PushTEnv
