"""Navigation from dialogue history (CVDN): how much nearer an agent gets to where the dialogue leads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from embodied.evaluation.scorers.base import Record, Unit, wrong
from embodied.evaluation.scorers.navigation.paths import efficiency, walked
from embodied.evaluation.scorers.navigation.steps import GraphScorer


class CVDN(GraphScorer):
    """`goal_progress`: metres by which the way to the nearest of the end region's viewpoints got shorter.

    The other figures are held against the last viewpoint of the path that is supervised. Success is strict. A question
    that is asked in the goal region is answered by staying: then SPL is 1 for a path of length 0 and 0 for any other.

    Args:
        connectivity: the folder of `<scan>_connectivity.json` files.
        path: what supervises: the planner's path, the player's, or the `trusted_path`, which is the player's where it
            passes the planner's end after its start, and the planner's otherwise.
        threshold: metres.
        edges: whether a jump between viewpoints that are not joined is an error.

    References have `scan`, `planner_path`, `player_path` and `end_panos`; predictions `path`.
    """

    needs = ("scan", "planner_path", "player_path", "end_panos")
    figures: ClassVar[Mapping[str, Unit]] = {
        "goal_progress": "number",
        "success": "rate",
        "spl": "rate",
        "oracle_success": "rate",
        "oracle_path_success": "rate",
        "navigation_error": "number",
        "path_length": "number",
    }
    score_of = "goal_progress"

    def __init__(
        self,
        connectivity: str,
        path: Literal["planner_path", "player_path", "trusted_path"] = "trusted_path",
        threshold: float = 3.0,
        edges: bool = True,
    ) -> None:
        super().__init__(connectivity, edges)
        if path not in ("planner_path", "player_path", "trusted_path"):
            raise ValueError(f"CVDN: path is planner_path, player_path or trusted_path, got {path}")
        if not threshold > 0:
            raise ValueError(f"CVDN: threshold is more than 0 metres, got {threshold}")
        self.path, self.threshold = path, threshold

    def episode(self, record: Record) -> dict[str, float]:
        house = self.house(record)
        reference = self.rows(record, house, self._supervising(record))
        planned = self.rows(record, house, record.reference["planner_path"])[-1]
        ends = self.rows(record, house, record.reference["end_panos"])
        rows = self.walk(record, house, reference[0])
        far, start, goal = house.distances, reference[0], reference[-1]
        taken, error = walked(far, rows), float(far[rows[-1], goal])
        won = float(error < self.threshold)
        return {
            "goal_progress": float(far[start, ends].min() - far[rows[-1], ends].min()),
            "success": won,
            "spl": won * efficiency(float(far[start, goal]), taken),
            "oracle_success": float(far[rows, goal].min() < self.threshold),
            "oracle_path_success": float(far[rows, planned].min() < self.threshold),
            "navigation_error": error,
            "path_length": taken,
        }

    def _supervising(self, record: Record) -> Any:
        planner, player = record.reference["planner_path"], record.reference["player_path"]
        if not isinstance(planner, list) or not isinstance(player, list):
            raise wrong(record, "has a planner_path or a player_path that is no list of viewpoints")
        if self.path == "trusted_path":
            return player if planner[-1] in player[1:] else planner
        return record.reference[self.path]
