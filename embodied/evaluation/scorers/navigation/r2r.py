"""Room-to-Room and Room-for-Room, by the rules of Matterport3DSimulator's scorer and of DUET's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np

from embodied.evaluation.scorers.base import Record, Unit
from embodied.evaluation.scorers.navigation.paths import coverage, efficiency, similarity, walked, warping
from embodied.evaluation.scorers.navigation.steps import GraphScorer


class RoomToRoom(GraphScorer):
    """Whether an agent that follows an instruction ends near the goal, how directly, and how closely to the reference.

    All distances are along the graph. An episode is a success where the last viewpoint is nearer to the goal than the
    threshold: strictly, and whether or not the agent said that it stops. nDTW, SDTW and CLS are as in the scorer of
    DUET's family, over the viewpoints passed; turns on the spot do not count as points.

    Args:
        connectivity: the folder of `<scan>_connectivity.json` files.
        threshold: metres.
        reference_length: what SPL holds the walked length against: the `shortest` way from start to goal, as the
            official scorer does, or the `annotated` path and at least 1 cm, as DUET's family does. They differ on
            Room-for-Room alone.
        edges: whether a jump between viewpoints that are not joined is an error.
        by: keys of references to split the figures by.

    References have `scan` and `path`; predictions `path`.
    """

    needs = ("scan", "path")
    figures: ClassVar[Mapping[str, Unit]] = {
        "success": "rate",
        "spl": "rate",
        "oracle_success": "rate",
        "ndtw": "rate",
        "sdtw": "rate",
        "cls": "rate",
        "navigation_error": "number",
        "oracle_error": "number",
        "path_length": "number",
    }

    def __init__(
        self,
        connectivity: str,
        threshold: float = 3.0,
        reference_length: Literal["shortest", "annotated"] = "shortest",
        edges: bool = True,
        by: Sequence[str] = (),
    ) -> None:
        super().__init__(connectivity, edges)
        if reference_length not in ("shortest", "annotated"):
            raise ValueError(f"RoomToRoom: reference_length is shortest or annotated, got {reference_length}")
        if not threshold > 0:
            raise ValueError(f"RoomToRoom: threshold is more than 0 metres, got {threshold}")
        self.threshold, self.reference_length, self.parts = threshold, reference_length, tuple(by)

    def episode(self, record: Record) -> dict[str, float]:
        house = self.house(record)
        reference = self.rows(record, house, record.reference["path"])
        rows = self.walk(record, house, reference[0])
        far = house.distances
        to_goal, taken = far[rows, reference[-1]], walked(far, rows)
        annotated = walked(far, reference)
        won = float(to_goal[-1] < self.threshold)
        if self.reference_length == "shortest":
            direct = efficiency(float(far[reference[0], reference[-1]]), taken)
        else:
            direct = efficiency(annotated, taken, least=0.01)
        passed = rows[np.concatenate([[True], rows[1:] != rows[:-1]])]
        costs = far[np.ix_(passed, reference)]
        similar = similarity(warping(costs), len(reference), self.threshold)
        return {
            "success": won,
            "spl": won * direct,
            "oracle_success": float(to_goal.min() < self.threshold),
            "ndtw": similar,
            "sdtw": won * similar,
            "cls": coverage(costs, taken, annotated, self.threshold),
            "navigation_error": float(to_goal[-1]),
            "oracle_error": float(to_goal.min()),
            "path_length": taken,
        }
