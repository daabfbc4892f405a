"""PointNav: walk to a point given relative to where one stands, and stop there."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from envs.house.houses import House
from envs.house.simulator import relative
from envs.house.tasks.base import Episode, HouseTask, start_in

LEAST, MOST, RATIO = 1.0, 30.0, 1.1
"""Metres of the shortest way, and how much longer than the straight line it is in most episodes (habitat-lab's
`create_pointnav_dataset`)."""
WORDS = {
    False: ("go to the goal point and stop there", "walk to the goal and stop", "reach the goal point, then stop"),
    True: ("navigate to the target location and halt", "make your way to the target and come to rest"),
}


class PointNav(HouseTask):
    """Success is to stop where the way to the goal is shorter than 0.2 m (Habitat's challenge and habitat-lab).

    The state ends with the goal as an agent with GPS and compass knows it: distance in metres, cosine and sine of its
    bearing (to the left is positive).
    """

    name, near = "pointnav", 0.2
    senses: ClassVar[tuple[str, ...]] = ("goal_distance", "goal_cos", "goal_sin")
    units: ClassVar[tuple[str, ...]] = ("m", "1", "1")

    def draw(self, house: House, rng: np.random.Generator) -> Episode | None:
        start = start_in(self.sim, rng)
        goal = self.sim.finder.random_point(rng)
        far = self.sim.finder.geodesic(start.position[None], goal[None])
        straight = float(np.linalg.norm(goal - start.position))
        if not LEAST <= far <= MOST:
            return None
        if far / straight < RATIO and rng.random() > 20 * (far / straight - 0.98) ** 2:
            return None
        words = WORDS[self.reworded]
        reference = {"goals": [{"position": [*goal.tolist(), 0.0]}], "geodesic_distance": far}
        return Episode(start, goal[None], words[int(rng.integers(len(words)))], reference)

    def sense(self) -> np.ndarray:
        ahead, left = relative(self.episode.goals[0], self.sim.state)
        return np.array([math.hypot(ahead, left), *_direction(ahead, left)])


def _direction(ahead: float, left: float) -> tuple[float, float]:
    far = math.hypot(ahead, left)
    return (ahead / far, left / far) if far > 1e-9 else (1.0, 0.0)
