"""PointMaze (D4RL, Fu et al. 2020, arXiv 2004.07219; v3 of gymnasium-robotics): a ball finds its way, seen from above.

The ball is pushed by a force and rolls on, so that it has to brake before corners. Walls are one metre thick.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from embodied.spec import ActionSpec, StateSpec
from envs.base import Body, texts
from envs.mujoco.gymnasium_robotics import GymnasiumRobotics
from envs.mujoco.scene import Viewpoint

BODY = Body(
    name="point",
    action=ActionSpec(
        names=("force_x", "force_y"),
        units=("100 N", "100 N"),
        low=(-1.0, -1.0),
        high=(1.0, 1.0),
        control="force",
        space="base",
        frame="world",
    ),
    state=StateSpec(names=("x", "y", "velocity_x", "velocity_y"), units=("m", "m", "m/s", "m/s"), frame="world"),
    truth=("goal_x", "goal_y"),
    rate=100.0,
)


class Maze(GymnasiumRobotics):
    """One or several mazes; implements `embodied.interaction.Environment`.

    The state is the ball's position and velocity, the truth the goal's position; the map is in `walls`. The reward is
    1 in the steps that end within 45 cm of the goal, else 0. The goal does not move within an episode. Arguments: see
    `MujocoBody`.
    """

    instructions: ClassVar[Mapping[str, str]] = {
        "umaze": "go to the red sphere",
        "open": "go to the red sphere",
        "medium": "go through the maze to the red sphere",
        "large": "go through the large maze to the red sphere",
    }
    official: ClassVar[Mapping[str, str]] = {
        "umaze": "PointMaze_UMaze-v3",
        "open": "PointMaze_Open-v3",
        "medium": "PointMaze_Medium-v3",
        "large": "PointMaze_Large-v3",
    }
    rephrased = texts(__file__, "rephrased")
    default_steps: ClassVar[Mapping[str, int]] = {"umaze": 300, "open": 300, "medium": 600, "large": 800}
    camera_names = ("above",)
    surroundings = ("groundplane", "world")  # the walls belong to the world

    def body(self, task: str) -> Body:
        return BODY

    def options(self, task: str) -> dict[str, Any]:
        return {"continuing_task": True, "reset_target": False}

    def viewpoints(self, task: str) -> Mapping[str, Viewpoint]:
        # the outer walls' middle is the picture's edge, seen under 22.5 degrees
        rows, columns = {"umaze": (5, 5), "open": (5, 7), "medium": (8, 8), "large": (9, 12)}[task]
        return {
            "above": Viewpoint((0.0, 0.0, 0.0), 0.4 + (max(rows, columns) - 1) / 2 / np.tan(np.radians(22.5)), 90, -90)
        }

    @property
    def walls(self) -> np.ndarray:
        """The present maze, bool (rows, columns), True where a wall is."""
        return np.array([[cell == 1 for cell in row] for row in self.sim.maze.maze_map])

    def cell(self, position: np.ndarray) -> tuple[int, int]:
        """Row and column of a position (x, y) in metres."""
        row, column = self.sim.maze.cell_xy_to_rowcol(np.asarray(position))
        return int(row), int(column)

    def middle(self, cell: tuple[int, int]) -> np.ndarray:
        """The middle (x, y) of a cell, metres."""
        return np.asarray(self.sim.maze.cell_rowcol_to_xy(np.asarray(cell)))

    def succeeded(self, info: Mapping[str, Any]) -> bool:
        return bool(info["success"])

    def feel(self) -> np.ndarray:
        return self.seen["observation"]

    def truth(self) -> np.ndarray:
        return self.sim.goal
