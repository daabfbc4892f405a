"""A scripted expert for the mobile arm: closed loops on where base, fingertips, cube and bin are."""

from __future__ import annotations

from typing import Any

import numpy as np

from embodied.interaction import Expert
from envs.mujoco.mobile_arm import AXIS, joints_for

OPEN, SHUT = -1.0, 1.0
AHEAD = 0.37
"""How far ahead of the arm's own axis the base stops before what it reaches for, metres."""
STOP = 0.64
"""The farthest the base may go: its front is then 4 cm before the table."""
CARRY = (0.25, 0.0, 0.6)
"""Where the fingertips are while the base drives, in front of the arm's axis: clear of the table and of the bin."""
NEAR = 0.07
"""How close to its place the base must be before the arm reaches out, metres; the arm makes up for the rest."""


class MobileArmExpert(Expert):
    """Drives, picks, drives, drops; deterministic, and decided by the present positions alone.

    Args:
        env: an `envs.mujoco.mobile_arm.MobileArm`, in any observation mode.

    Raises:
        ValueError: another kind of environment.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        if not hasattr(type(env), "fingertips"):
            raise ValueError(f"MobileArmExpert demonstrates in MobileArm, not in {type(env).__name__}")
        self._high = np.asarray(env.embodiment.action.high)

    def reset(self, seed: int) -> None:
        pass

    def act(self) -> np.ndarray:
        """The action (8,), float32, within bounds."""
        felt, truth = self.env.feel(), self.env.truth()
        which = int(truth[-1])
        cube, bin_ = truth[3 * which : 3 * which + 3], truth[9:11]
        tips = self.env.fingertips()
        held = np.abs(tips - cube).max() < 0.045 and 0.02 < felt[-1] < 0.07
        place = bin_ if held else cube[:2]
        stand = np.array([min(place[0] - AHEAD - AXIS, STOP), place[1]])
        there = np.linalg.norm(stand - felt[:2]) < NEAR and abs(felt[2]) < 0.15
        over = np.linalg.norm(tips[:2] - place)
        gripper, reach = OPEN, np.append(place, 0.5 if held or over > 0.06 else cube[2] + 0.06)
        if held:
            gripper = OPEN if there and over < 0.04 else SHUT
        elif over < 0.015 or (over < 0.03 and tips[2] < cube[2] + 0.05):
            reach = cube
            gripper = SHUT if tips[2] < cube[2] + 0.012 and over < 0.02 else OPEN
        lifted = tips[2] > 0.5
        if held and not lifted and not (there and over < 0.1):
            return self._action(felt, felt[:2], np.append(tips[:2], 0.6), gripper)  # up, before anything else
        return self._action(felt, stand, reach if there else None, gripper)

    def _action(self, felt: np.ndarray, stand: np.ndarray, reach: np.ndarray | None, gripper: float) -> np.ndarray:
        """Towards a place (2,) for the base and one (3,) for the fingertips, world frame; None to carry."""
        cos, sin = np.cos(felt[2]), np.sin(felt[2])
        turn = np.array([[cos, sin], [-sin, cos]])  # from the world's frame into the base's
        drive = np.append(3.0 * turn @ (stand - felt[:2]), -3.0 * felt[2])
        local = np.array(CARRY) if reach is None else np.append(turn @ (reach[:2] - felt[:2]) - [AXIS, 0.0], reach[2])
        bend = 12.0 * (joints_for(*local) - felt[3:7])
        parts = []
        for rate, most in ((drive[:2], self._high[:2]), (drive[2:], self._high[2:3]), (bend, self._high[3:7])):
            parts.append(rate / max(1.0, float(np.abs(rate / most).max())))
        return np.concatenate([*parts, [gripper]]).astype(np.float32)
