"""Scripted experts for panda-gym's tasks: they read where everything is and steer the hand there, step by step.

All are closed-loop and, but for `slide`, without memory: what they do follows from what is where at this moment, so
that a disturbed, dropped or missed object is simply gone for again. Demonstrations with noise on the executed actions
show a policy how to come back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embodied.interaction import Expert

OPEN, SHUT = 1.0, -1.0
CUBE = 0.04
"""The cubes' edge, metres."""
UP = np.array([0.0, 0.0, 0.05])
PUSHING, CARRYING, LOWERING = 2.5, 3.0, 3.5
"""How far to go in one step at most, cm: faster, the cube slides ahead, slips through the fingers, or is missed."""
TABLE_Z, STRIKE_Z = CUBE / 2, 0.015
"""The heights of a cube's centre on the table, and of the fingertips that hit the puck."""


class PandaExpert(Expert):
    """The expert for whatever task the environment runs; deterministic.

    Args:
        env: an `envs.pybullet.panda.PandaGym`, in any observation or control mode.

    Raises:
        ValueError: another kind of environment.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        if not callable(getattr(env, "joints_towards", None)):
            raise ValueError(f"PandaExpert demonstrates in PandaGym, not in {type(env).__name__}")
        self._act: Callable[[Any], np.ndarray] | None = None

    def reset(self, seed: int) -> None:
        experts: dict[str, Callable[[], Callable[[Any], np.ndarray]]] = {
            "reach": lambda: reach,
            "push": lambda: push,
            "pick-place": lambda: pick_place,
            "stack": lambda: stack,
            "slide": Slide,
        }
        self._act = experts[self.env.task]()

    def act(self) -> np.ndarray:
        """The action (4,), or (8,) for joints, float32."""
        if self._act is None:
            raise ValueError("PandaExpert: call reset before act")
        action = self._act(self.env.situation())
        spec = self.env.embodiment.action
        if spec.space == "joint":
            turns = self.env.joints_towards(action[:3])
            turns *= min(1.0, spec.high[0] / max(np.abs(turns).max(), 1e-9))
            action = np.concatenate([turns, action[3:]])
        return action.astype(np.float32)


def reach(now: Any) -> np.ndarray:
    """Straight to the goal."""
    return _move(now, now.goals[0], SHUT)


def pick_place(now: Any) -> np.ndarray:
    """Grasp the cube from above and carry it to the goal, which may be in the air."""
    return _carry(now, 0, now.goals[0])


def push(now: Any) -> np.ndarray:
    """Push the cube to the goal."""
    return _push(now, 0, now.goals[0])


def stack(now: Any) -> np.ndarray:
    """Blue to its place, green on top of it; a green cube that is in the way is pushed aside first."""
    blue, green = now.objects
    place, top = now.goals
    placed = bool(np.linalg.norm(blue - place) < 0.025)
    if _held(now, 1):
        return _carry(now, 1, top, lift=0.06)
    if placed and np.linalg.norm(now.hand[:2] - blue[:2]) < 0.045 and now.hand[2] < blue[2] + 0.05:
        let_go = now.width < 0.07  # then straight up, not to drag it along
        return np.array([0.0, 0.0, 0.0, OPEN]) if let_go else _move(now, now.hand + UP, OPEN)
    if not _held(now, 0) and (_cramped(green, blue) or (not placed and _cramped(green, place))):
        return _push(now, 1, _aside(green, [blue, place]))
    return _carry(now, 1, top, lift=0.06) if placed else _carry(now, 0, place, lift=0.06)


class Slide:
    """Hits the puck from behind, as hard as it can; where the puck passes the goal, it has reached it.

    The closed fingers are a flat bar across x. Met in its middle the puck flies along x, whichever way the hand was
    going; met by the bar's edge it flies off to the side. So the hand strikes along x, and aims by how far beside the
    puck it does so.
    """

    BESIDE = (0.0, 0.02, 0.025, 0.03, 0.035, 0.04, 0.045)
    """How far beside the puck's centre, metres, and"""
    ANGLE = (0.0, 0.5, 2.5, 12.0, 20.5, 30.0, 42.0)
    """the angle from x at which the puck then flies off to the other side, degrees: measured, the same everywhere."""

    def __init__(self) -> None:
        self._line: float | None = None  # the y along which to strike, once that has begun
        self._waited = 0

    def __call__(self, now: Any) -> np.ndarray:
        """The action (4,) for what is where now."""
        puck, hand = now.objects[0], now.hand
        if self._line is None:
            way = now.goals[0][:2] - puck[:2]
            angle = float(np.degrees(np.arctan2(way[1], way[0])))
            beside = puck[1] - np.sign(angle) * np.interp(abs(angle), self.ANGLE, self.BESIDE)
            ready = np.array([puck[0] - 0.06, beside])
            off = np.abs(hand[:2] - ready)
            near = hand[2] < 0.03 and off.max() < 0.03
            self._waited += near
            patience = max(0, self._waited - 4) / 1000  # a disturbed hand is never quite where it should be
            if near and off[0] < 0.015 + patience and off[1] < 0.002 + patience:
                self._line = float(beside)
            else:
                high = min(float(np.linalg.norm(off)) - 0.01, 0.08) if hand[0] < puck[0] - 0.045 else 0.08
                return _move(now, np.array([*ready, STRIKE_Z + max(0.0, high)]), SHUT)
        sideways, down = 100 * (self._line - hand[1]), 100 * (STRIKE_Z - hand[2])
        return np.clip([5.0, sideways, down, SHUT], -5, 5)


def _push(now: Any, which: int, place: np.ndarray) -> np.ndarray:
    """One step towards having object `which` at `place`: get behind it and push it, steering against its drift."""
    thing, hand = now.objects[which], now.hand
    way = place[:2] - thing[:2]
    ahead = way / max(np.linalg.norm(way), 1e-6)
    offset = hand[:2] - thing[:2]
    along = offset @ ahead
    aside = offset - along * ahead
    low = thing[2]
    if hand[2] < low + 0.025 and along < -0.015 and np.linalg.norm(aside) < 0.02:
        target = hand[:2] + 0.04 * ahead - 1.2 * aside
        return _move(now, np.array([*target, low]), SHUT, most=PUSHING)
    behind = thing[:2] - 0.06 * ahead
    if along < -0.03:
        far = np.linalg.norm(hand[:2] - behind)
        return _move(now, np.array([*behind, low + max(0.0, min(far - 0.015, 0.08))]), SHUT)
    if hand[2] < low + 0.04 and np.linalg.norm(offset) < 0.06:
        behind = hand[:2]  # straight up first, not to drag it along
    return _move(now, np.array([*behind, low + 0.08]), SHUT)


def _carry(now: Any, which: int, place: np.ndarray, lift: float = 0.0) -> np.ndarray:
    """One step towards having object `which` at `place`, held.

    Args:
        lift: by how many metres to pass over what may lie about, with and without the object.
    """
    thing, hand = now.objects[which], now.hand
    x, y, z = np.abs(hand - thing)
    if _held(now, which):
        way = place - thing
        flat = float(np.linalg.norm(way[:2]))
        if lift:
            height = place[2] + min(lift, max(0.0, flat - 0.01) * 2) - thing[2]
            way = np.array([*way[:2] * _cleared(-height, flat), height])
        return _move(now, hand + way, SHUT, most=CARRYING)
    if x < 0.012 and max(y, z) < 0.016:
        return np.array([0.0, 0.0, 0.0, SHUT])
    astride = y < 0.018 and z < 0.02 and x < 0.05
    if now.width > 0.06 and (max(x, y) < 0.02 or astride):
        return _move(now, hand + (thing - hand) * [1.5, 1.5, 1.0] - [0, 0, 0.004], OPEN, most=LOWERING)
    above = thing + np.array([0, 0, 0.07])
    if lift:
        above[:2] = hand[:2] + (above[:2] - hand[:2]) * _cleared(hand[2] - above[2], max(x, y))
    return _move(now, above, OPEN)


def _held(now: Any, which: int) -> bool:
    return bool(np.abs(now.hand - now.objects[which]).max() < 0.03 and 0.03 < now.width < 0.05)


def _cleared(above: float, flat: float) -> float:
    """How much of the way sideways to go, 0 to 1: all of it at the right height (above = 0), none 4 cm below."""
    return 1.0 if flat < 0.02 else float(np.clip(1 + above / 0.04, 0.02, 1.0))


def _cramped(thing: np.ndarray, place: np.ndarray) -> bool:
    """Whether the fingers, which open along y, could not get at one for the other."""
    x, y, _ = np.abs(thing - place)
    return bool(x < 0.05 and y < 0.085)


def _aside(thing: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """Where to push a thing that is in the way: 10 cm on, where it is clear, within reach, and can be pushed to."""
    angles = np.arange(16) * np.pi / 8
    best, least = thing, np.inf
    for ahead in np.stack([np.cos(angles), np.sin(angles), np.zeros(16)], axis=1):
        place, hand = thing + 0.1 * ahead, thing - 0.06 * ahead
        outside = np.maximum(np.abs(place[:2]) - [0.15, 0.17], 0).sum()
        crowded = sum(max(0.0, 0.1 - float(np.linalg.norm((place - other)[:2]))) for other in others)
        blocked = max(0.0, 0.06 - float(np.linalg.norm((hand - others[0])[:2])))
        cost = 3 * outside + crowded + blocked
        if cost < least:
            best, least = place, cost
    return np.array([*best[:2], thing[2]])


def _move(now: Any, target: np.ndarray, gripper: float, most: float = 5.0) -> np.ndarray:
    """Straight towards `target` (3,), metres, by at most `most` cm along each axis."""
    centimetres = 100 * (target - now.hand)
    return np.append(centimetres * min(1.0, most / max(np.abs(centimetres).max(), 1e-9)), gripper)
