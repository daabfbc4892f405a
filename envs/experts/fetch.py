"""Scripted experts for the Fetch robot: closed loops on where hand, object and goal are.

Nothing is planned ahead: each action follows from the present positions alone, so that a disturbed episode goes on from
where it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from embodied.interaction import Expert

STEP = 0.05
"""Metres that an action of 1 asks for."""
CLEAR = 0.07
"""How high above an object's middle the hand passes over it, metres."""
OPEN, SHUT = 1.0, -1.0


class FetchExpert(Expert):
    """Reaches, pushes, and picks and places; deterministic.

    In slide it pushes too, which is not the way for goals that lie beyond the arm's reach: two in three succeed.

    Args:
        env: an `envs.mujoco.fetch.Fetch`, in any observation mode.

    Raises:
        ValueError: another kind of environment.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._ways = {"reach": self._reach, "push": self._push, "pick-place": self._pick_place, "slide": self._push}
        if set(getattr(env, "instructions", ())) != set(self._ways):
            raise ValueError(f"FetchExpert demonstrates in Fetch, not in {type(env).__name__}")

    def reset(self, seed: int) -> None:
        pass

    def act(self) -> np.ndarray:
        """The action (4,), float32, within bounds."""
        truth = self.env.truth()
        target, gripper = self._ways[self.env.task](self.env.feel(), truth[:3], truth[6:])
        move = (target - self.env.feel()[:3]) / STEP
        # as one vector, so that it goes straight
        return np.append(move / max(1.0, np.abs(move).max()), gripper).astype(np.float32)

    def _reach(self, felt: np.ndarray, thing: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, float]:
        return goal, SHUT

    def _pick_place(self, felt: np.ndarray, thing: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, float]:
        hand, opening = felt[:3], felt[3]
        beside = np.linalg.norm(hand[:2] - thing[:2])
        between = beside < 0.02 and abs(hand[2] - thing[2]) < 0.02
        if between and opening > 0.055:
            return thing, SHUT
        if between:
            return goal + (hand - thing), SHUT
        if beside < 0.015 + 0.2 * max(0.0, hand[2] - thing[2] - 0.03) or (beside < 0.03 and opening > 0.08):
            return thing, OPEN
        return thing + np.array([0, 0, CLEAR]), OPEN

    def _push(self, felt: np.ndarray, thing: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, float]:
        hand = felt[:3]
        way = (goal - thing)[:2]
        distance = np.linalg.norm(way)
        way = way / max(distance, 1e-6)
        off = (hand - thing)[:2]
        along, across = off @ way, abs(off[0] * way[1] - off[1] * way[0])
        low = thing[2]
        behind = np.append(thing[:2] - 0.065 * way, low)
        if along < -0.03 and across < 0.012 + 0.2 * max(0.0, -along - 0.06):
            if hand[2] - low > 0.02:
                return behind, SHUT
            # the pull dies away at the goal, so that the block does not go past it
            return np.append(thing[:2] + way * min(distance, 0.05) * 0.6, low), SHUT
        over = np.append(behind[:2], low + CLEAR)
        if np.linalg.norm(hand[:2] - behind[:2]) < 0.015:
            return behind, SHUT
        if hand[2] < low + CLEAR - 0.02 and np.linalg.norm(off) < 0.09:
            return np.append(hand[:2], low + CLEAR), SHUT
        return over, SHUT
