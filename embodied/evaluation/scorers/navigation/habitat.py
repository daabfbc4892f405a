"""PointNav and ObjectNav by the rules of habitat-lab's measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from embodied.evaluation.scorers.base import Record, Unit
from embodied.evaluation.scorers.navigation.paths import efficiency, length, soft_success
from embodied.evaluation.scorers.navigation.steps import EpisodeScorer


class Habitat(EpisodeScorer):
    """Success is to call stop where the distance to the goal is strictly less than the threshold.

    The distance is geodesic, as the simulator measured it: to the goal's point in PointNav, to the nearest of all
    goals' view points in ObjectNav. SPL and SoftSPL are held against the distance measured at the start, not against
    the episode file's `info.geodesic_distance`, and the path's length is the sum of straight lines between positions.

    Args:
        threshold: metres: 0.2 in PointNav (0.36 in its older challenges), 0.1 in ObjectNav.
        by: keys of references to split the figures by, such as `object_category`.

    References are episodes; predictions have `positions`, `distances` and `stop`.
    """

    figures: ClassVar[Mapping[str, Unit]] = {
        "success": "rate",
        "spl": "rate",
        "soft_spl": "rate",
        "distance_to_goal": "number",
        "path_length": "number",
        "actions": "number",
    }

    def __init__(self, threshold: float = 0.2, by: Sequence[str] = ()) -> None:
        if not threshold > 0:
            raise ValueError(f"Habitat: threshold is more than 0 metres, got {threshold}")
        self.threshold, self.parts = threshold, tuple(by)

    def episode(self, record: Record) -> dict[str, float]:
        did = record.prediction
        start, end, taken = float(did["distances"][0]), float(did["distances"][-1]), length(did["positions"])
        won, direct = float(did["stop"] and end < self.threshold), efficiency(start, taken)
        return {
            "success": won,
            "spl": won * direct,
            "soft_spl": soft_success(start, end) * direct,
            "distance_to_goal": end,
            "path_length": taken,
            "actions": float(len(did["positions"]) - 1 + did["stop"]),
        }
