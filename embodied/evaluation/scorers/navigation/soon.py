"""SOON: go near a described object and point at it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from embodied.evaluation.scorers.base import Record, Unit, wrong
from embodied.evaluation.scorers.navigation.paths import efficiency, walked
from embodied.evaluation.scorers.navigation.steps import GraphScorer

CORNERS = ("left_top", "right_top", "right_bottom", "left_bottom")
Point = tuple[float, float]


class SOON(GraphScorer):
    """Success is to end nearer than the threshold to the goal; where the end itself sees the object, it is the goal.

    The goal that counts is the last viewpoint if it is one of those with a box, and the annotated path's end otherwise.
    `grounding` (det SR) is that the direction pointed in lies inside the box as seen from the last viewpoint: strictly,
    in headings / 2 pi and (elevations + pi) / 2 pi. As in the official scorer, a box across heading 0 is not wrapped
    around. `spl` and `grounding_spl` divide by at least 1 cm; for an agent whose start is its goal both are 0, there as
    here.

    Args:
        connectivity: the folder of `<scan>_connectivity.json` files.
        threshold: metres.
        edges: whether a jump between viewpoints that are not joined is an error; officially it counts as the shortest
            way between them.

    References have `scan`, `path` and `bboxes` (by viewpoint, radians); predictions `path`, and `obj_heading` and
    `obj_elevation` in [0, 1] as above, or lists of which the first counts.
    """

    needs = ("scan", "path", "bboxes")
    figures: ClassVar[Mapping[str, Unit]] = {
        "success": "rate",
        "spl": "rate",
        "oracle_success": "rate",
        "grounding": "rate",
        "grounding_spl": "rate",
        "navigation_error": "number",
        "oracle_error": "number",
        "goal_progress": "number",
        "path_length": "number",
    }

    def __init__(self, connectivity: str, threshold: float = 3.0, edges: bool = False) -> None:
        super().__init__(connectivity, edges)
        if not threshold > 0:
            raise ValueError(f"SOON: threshold is more than 0 metres, got {threshold}")
        self.threshold = threshold

    def episode(self, record: Record) -> dict[str, float]:
        house = self.house(record)
        reference = self.rows(record, house, record.reference["path"])
        rows = self.walk(record, house, reference[0])
        boxes, last = record.reference["bboxes"], record.prediction["path"][-1]
        if not isinstance(boxes, dict):
            raise wrong(record, "has 'bboxes' that are no boxes by viewpoint")
        far = house.distances
        goal = rows[-1] if last in boxes else reference[-1]
        # the nearest viewpoint is the nearest to the annotated end, even where the goal is another: as official
        closest = rows[far[rows, reference[-1]].argmin()]
        taken, error = walked(far, rows), float(far[rows[-1], goal])
        shortest = float(far[reference[0], goal])
        direct, won = efficiency(shortest, taken, least=0.01), float(error < self.threshold)
        found = {
            "success": won,
            "spl": won * direct,
            "oracle_success": float(far[closest, goal] < self.threshold),
            "navigation_error": error,
            "oracle_error": float(far[closest, goal]),
            "goal_progress": shortest - error,
            "path_length": taken,
        }
        pointed = direction(record.prediction)
        if pointed is not None:
            right = float(last in boxes and inside(pointed, corners(record, boxes[last])))
            found |= {"grounding": right, "grounding_spl": right * direct}
        return found


def direction(prediction: dict[str, Any]) -> Point | None:
    """Where an agent points; None where it does not say."""
    parts = []
    for key in ("obj_heading", "obj_elevation"):
        value = prediction.get(key)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        parts.append(float(value))
    return parts[0], parts[1]


def corners(record: Record, box: Any) -> list[Point]:
    """A box's corners in turns of the heading and of the elevation above straight down.

    Raises:
        ValueError: it is no box.
    """
    try:
        target = [box["target"][corner] for corner in CORNERS]
        return [
            (float(one["heading"]) / (2 * math.pi), (float(one["elevation"]) + math.pi) / (2 * math.pi))
            for one in target
        ]
    except (KeyError, TypeError, ValueError):
        raise wrong(record, f"has a box without the corners {', '.join(CORNERS)} under 'target'") from None


def inside(point: Point, polygon: Sequence[Point]) -> bool:
    """Whether a point lies in the inner of a polygon; its edges do not belong to it."""
    x, y = point
    odd = False
    for (x1, y1), (x2, y2) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        turn = (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1)
        if turn == 0 and min(x1, x2) <= x <= max(x1, x2) and min(y1, y2) <= y <= max(y1, y2):
            return False
        if (y1 > y) != (y2 > y) and (turn > 0) == (y2 > y1):
            odd = not odd
    return odd
