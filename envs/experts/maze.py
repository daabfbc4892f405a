"""A planner for mazes: the shortest way over the grid, and a force that follows it and brakes in time."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from embodied.interaction import Expert

STIFFNESS, DAMPING = 1.6, 0.65
"""Force (100 N) per metre of way left, and per metre per second of speed."""


class MazeExpert(Expert):
    """Goes to the middle of each next cell on the shortest way, then to the goal; deterministic.

    Args:
        env: an `envs.mujoco.maze.Maze`, in any observation mode.

    Raises:
        ValueError: another kind of environment.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        if not all(hasattr(type(env), name) for name in ("walls", "cell", "middle")):
            raise ValueError(f"MazeExpert demonstrates in Maze, not in {type(env).__name__}")
        self._steps: dict[tuple[int, int], int] = {}

    def reset(self, seed: int) -> None:
        self._steps = distances(self.env.walls, self.env.cell(self.env.truth()))

    def act(self) -> np.ndarray:
        """The action (2,), float32, within bounds."""
        felt = self.env.feel()
        force = STIFFNESS * (self._aim(felt[:2]) - felt[:2]) - DAMPING * felt[2:]
        return (force / max(1.0, np.abs(force).max())).astype(np.float32)

    def _aim(self, position: np.ndarray) -> np.ndarray:
        """The farthest point of the way that can be reached in a straight line along free cells."""
        here = self.env.cell(position)
        if here not in self._steps:  # touching a wall counts as inside it: go to the nearest free cell
            here = min(self._steps, key=lambda cell: float(np.linalg.norm(self.env.middle(cell) - position)))
            return self.env.middle(here)
        if self._steps[here] == 0:
            return self.env.truth()
        way = [here]
        while self._steps[way[-1]] > 0:
            row, column = way[-1]
            near = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
            way.append(min((cell for cell in near if cell in self._steps), key=self._steps.__getitem__))
        straight = 1
        for axis in (0, 1):
            same = 1
            while same < len(way) and way[same][axis] == here[axis]:
                same += 1
            straight = max(straight, same - 1)
        middle = self.env.middle(here)
        ahead = self.env.middle(way[straight])
        if straight == len(way) - 1 and self._clear(position, here, way[straight]):
            return self.env.truth()
        # the way bends into another corridor there: stay in the middle of this one
        axis = int(np.argmax(np.abs(ahead - middle)))
        if abs(position[1 - axis] - middle[1 - axis]) > 0.3:
            ahead = np.where(np.arange(2) == axis, position, middle)
        return ahead

    def _clear(self, position: np.ndarray, here: tuple[int, int], there: tuple[int, int]) -> bool:
        """Whether the straight line to the goal keeps away from walls: it stays in one corridor."""
        return all(
            (row, column) in self._steps
            for row in range(min(here[0], there[0]), max(here[0], there[0]) + 1)
            for column in range(min(here[1], there[1]), max(here[1], there[1]) + 1)
        )


def distances(walls: np.ndarray, goal: tuple[int, int]) -> dict[tuple[int, int], int]:
    """How many cells each free cell that can reach `goal` is away from it; walls are True, (rows, columns)."""
    steps = {goal: 0}
    queue = deque([goal])
    while queue:
        row, column = queue.popleft()
        for cell in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= cell[0] < walls.shape[0] and 0 <= cell[1] < walls.shape[1]
            if inside and cell not in steps and not walls[cell]:
                steps[cell] = steps[row, column] + 1
                queue.append(cell)
    return steps
