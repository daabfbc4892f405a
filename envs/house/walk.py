"""What an agent did, and what it is worth by habitat-lab's measures.

`Walk.prediction` is the row that `embodied-score` reads for an episode, `Walk.measures` the same rules applied at once.
SPL: Anderson et al. 2018; SoftSPL: Datta et al. 2020; nDTW: Magalhaes et al. 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Walk:
    """Where an agent was, from the start on, after every action.

    Attributes:
        positions: (x, y, 0) in metres.
        distances: from each of them to the goal that counts, along the shortest way, metres.
        actions: what it did, by name.
    """

    positions: list[tuple[float, float, float]] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)

    def add(self, position: np.ndarray, distance: float) -> None:
        self.positions.append((float(position[0]), float(position[1]), 0.0))
        self.distances.append(float(distance))

    @property
    def length(self) -> float:
        """Metres walked."""
        return float(np.linalg.norm(np.diff(np.array(self.positions), axis=0), axis=1).sum())

    def measures(self, success: bool, threshold: float) -> dict[str, float]:
        """Success, SPL, SoftSPL, oracle success, distance to the goal, path length.

        Args:
            success: by the task's rule.
            threshold: metres; nearer than that at any time is an oracle success.
        """
        start, end, taken = self.distances[0], self.distances[-1], self.length
        direct = start / max(start, taken) if start > 0 else float(taken == 0)
        soft = max(0.0, 1 - end / start) if start > 0 else float(end == 0)
        return {
            "success": float(success),
            "spl": success * direct,
            "soft_spl": soft * direct,
            "oracle_success": float(min(self.distances) < threshold),
            "distance_to_goal": end,
            "path_length": taken,
        }

    def likeness(self, reference: np.ndarray, threshold: float) -> float:
        """nDTW to (R, 2) points, over straight lines, repeated positions counted once."""
        points = np.array(self.positions)[:, :2]
        points = points[np.concatenate([[True], np.any(np.diff(points, axis=0) != 0, axis=1)])]
        costs = np.linalg.norm(points[:, None] - reference[None], axis=-1)
        total = np.cumsum(costs[0])
        for row in costs[1:]:
            before = np.minimum(total, np.concatenate([[np.inf], total[:-1]]))
            along = np.cumsum(row)
            total = along + np.minimum.accumulate(before - (along - row))
        return math.exp(-float(total[-1]) / (len(reference) * threshold))

    def prediction(self, name: str, stopped: bool) -> dict[str, Any]:
        """The row of this episode for `embodied-score profile=habitat`, `objectnav` or `vlnce`."""
        return {
            "episode_id": name,
            "positions": [list(position) for position in self.positions],
            "distances": list(self.distances),
            "stop": stopped,
        }
