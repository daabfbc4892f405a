"""From a field of remaining metres to one movement: turn towards the step that leaves the least, or take it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np

TURN_PRICE = 0.03
"""Metres that a turn is deemed to cost."""
NOWHERE = np.zeros((0, 3))
BETTER = 0.02
"""A step that saves less, in metres, is not worth making."""


@dataclass(frozen=True)
class Steering:
    """How a body turns and steps, and how cells lie in the plan.

    Attributes:
        forward: metres of a step.
        turn: radians of a turn.
        size: cells per side of the grid, whose middle is (0, 0).
        resolution: metres per cell.
    """

    forward: float
    turn: float
    size: int
    resolution: float

    def cell(self, places: np.ndarray) -> np.ndarray:
        """(..., 2) rows and columns of places (..., 2) in metres; those off the grid are at its edge."""
        at = np.floor(places / self.resolution + self.size / 2).astype(int)
        return np.clip(at, 0, self.size - 1)

    def centres(self, cells: np.ndarray) -> np.ndarray:
        """(..., 2) metres of the middles of cells (..., 2)."""
        return (cells + 0.5 - self.size / 2) * self.resolution

    def left_over(self, field: np.ndarray, places: np.ndarray) -> np.ndarray:
        """(N,) what remains from places (N, 2): by way of the best cell around each; infinite in a cell that is."""
        cells = self.cell(places)
        around = np.array(list(product((-1, 0, 1), repeat=2)))
        near = np.clip(cells[:, None] + around, 0, self.size - 1)
        way = np.linalg.norm(self.centres(near) - places[:, None], axis=-1)
        best = (field[near[..., 0], near[..., 1]] + way).min(1)
        return np.where(np.isfinite(field[cells[:, 0], cells[:, 1]]), best, np.inf)

    def barred(self, agent: np.ndarray, angles: np.ndarray, failed: np.ndarray) -> np.ndarray:
        """(N,), bool: whether a step at some angles (N,) failed before from about here.

        Args:
            agent: (3,) x, y, heading.
            failed: (F, 3) where the agent was and looked when a step led nowhere.
        """
        near = np.linalg.norm(failed[:, :2] - agent[:2], axis=1) < self.forward / 2
        away = angles[:, None] - failed[near, 2]
        return (np.cos(away) > math.cos(self.turn / 2)).any(1)

    def clear(self, occupied: np.ndarray, start: np.ndarray, end: np.ndarray) -> bool:
        """Whether nothing is in the way on the straight line between two places (2,)."""
        steps = max(2, math.ceil(4 * float(np.linalg.norm(end - start)) / self.resolution))
        cells = self.cell(start + np.linspace(0, 1, steps)[:, None] * (end - start))
        return not bool(occupied[cells[:, 0], cells[:, 1]].any())

    def towards(self, field: np.ndarray, agent: np.ndarray, failed: np.ndarray = NOWHERE) -> int | None:
        """How many turns (left is positive) before the step that leaves the least; None where no step gets nearer.

        Args:
            field: (S, S), see `policies.navigation.ways`.
            agent: (3,) x, y, heading.
            failed: see `barred`.
        """
        half = max(1, math.ceil(math.pi / self.turn))
        turns = np.array(sorted(range(-half, half + 1), key=abs))
        angle = agent[2] + turns * self.turn
        ahead = np.stack([np.cos(angle), np.sin(angle)], -1)
        ends, middles = agent[:2] + self.forward * ahead, agent[:2] + self.forward / 2 * ahead
        cost = self.left_over(field, ends) + TURN_PRICE * np.abs(turns)
        cost[~np.isfinite(self.left_over(field, middles)) | self.barred(agent, angle, failed)] = np.inf
        best = int(np.argmin(cost))
        here = float(self.left_over(field, agent[None, :2])[0])
        if not np.isfinite(cost[best]) or cost[best] - TURN_PRICE * abs(turns[best]) > here - BETTER:
            return None
        return int(turns[best])

    def to_point(self, point: np.ndarray, agent: np.ndarray, near: float, failed: np.ndarray = NOWHERE) -> int | None:
        """The same for a point that one or two steps reach, measured exactly: how many turns before the first step.

        Of all pairs of turns, each before a step, it takes the fewest movements that end within `near` metres of the
        point; None where no pair does.
        """
        half = max(1, math.ceil(math.pi / self.turn))
        turns = np.arange(-half, half + 1)
        first = agent[2] + turns * self.turn
        once = agent[:2] + self.forward * np.stack([np.cos(first), np.sin(first)], -1)
        second = first[:, None] + turns * self.turn
        twice = once[:, None] + self.forward * np.stack([np.cos(second), np.sin(second)], -1)
        moves = np.concatenate([np.abs(turns) + 1, (np.abs(turns)[:, None] + np.abs(turns) + 2).ravel()])
        away = np.concatenate([np.linalg.norm(once - point, axis=1), np.linalg.norm(twice - point, axis=-1).ravel()])
        stuck = self.barred(agent, first, failed)
        fits = (away < near) & ~np.concatenate([stuck, np.repeat(stuck, len(turns))])
        if not fits.any():
            return None
        best = int(np.argmin(np.where(fits, moves + away, np.inf)))
        return int(turns[best if best < len(turns) else (best - len(turns)) // len(turns)])
