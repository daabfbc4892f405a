"""REVERIE and SOON in continuous worlds: where an agent was in metres, and what it pointed at where it stopped.

The benchmarks' own scorers (`reverie`, `soon`) walk graphs of viewpoints. Without viewpoints, what they look up there
is what the simulator measured where the agent was: distances along the shortest way, from where the object was seen,
and its box as seen from the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from embodied.evaluation.scorers.base import Record, Unit, wrong
from embodied.evaluation.scorers.navigation.paths import efficiency, length
from embodied.evaluation.scorers.navigation.reverie import REVERIE
from embodied.evaluation.scorers.navigation.soon import corners, direction, inside
from embodied.evaluation.scorers.navigation.steps import EpisodeScorer


class ContinuousREVERIE(EpisodeScorer):
    """Success is to stop where the object is seen; `rgs` is that the object named is the right one, as text.

    As in `reverie`, grounding does not need success, and both of its figures are left out where `predObjId` is null: an
    agent that was asked and named nothing has to say so with an empty text. `spl` and `rgspl` hold the walked length
    against the distance at the start.

    References have `objId`; predictions `positions`, `distances`, `stop`, `seen` (one truth value per position) and
    `predObjId`.
    """

    needs = ("objId",)
    figures = REVERIE.figures

    def episode(self, record: Record) -> dict[str, float]:
        did = record.prediction
        seen, taken = did["seen"], length(did["positions"])
        if (
            not isinstance(seen, list)
            or len(seen) != len(did["positions"])
            or not all(s in (True, False) for s in seen)
        ):
            raise wrong(record, "needs 'seen', true or false for each of its positions")
        direct, won = efficiency(float(did["distances"][0]), taken), float(did["stop"] and seen[-1])
        found = {"success": won, "spl": won * direct, "oracle_success": float(any(seen)), "path_length": taken}
        if did["predObjId"] is not None:
            right = float(str(did["predObjId"]) == str(record.reference["objId"]))
            found |= {"rgs": right, "rgspl": right * direct}
        return found


class ContinuousSOON(EpisodeScorer):
    """Success is to stop nearer than the threshold; `grounding` that the agent points into the object's box.

    The box is the object's as seen from where the agent ended, null where it is not seen, in SOON's format; a box
    across heading 0 is one box here. Directions count as in `soon`, in [0, 1]. The figures of grounding are left out
    where `obj_heading` is null.

    Args:
        threshold: metres.

    Predictions have `positions`, `distances`, `stop`, `bbox`, `obj_heading` and `obj_elevation`.
    """

    figures: ClassVar[Mapping[str, Unit]] = {
        "success": "rate",
        "spl": "rate",
        "oracle_success": "rate",
        "grounding": "rate",
        "grounding_spl": "rate",
        "navigation_error": "number",
        "path_length": "number",
    }

    def __init__(self, threshold: float = 3.0) -> None:
        if not threshold > 0:
            raise ValueError(f"ContinuousSOON: threshold is more than 0 metres, got {threshold}")
        self.threshold = threshold

    def episode(self, record: Record) -> dict[str, float]:
        did = record.prediction
        distances, taken = did["distances"], length(did["positions"])
        error, direct = float(distances[-1]), efficiency(float(distances[0]), taken)
        won = float(did["stop"] and error < self.threshold)
        found = {
            "success": won,
            "spl": won * direct,
            "oracle_success": float(distances.min() < self.threshold),
            "navigation_error": error,
            "path_length": taken,
        }
        pointed = direction(did)
        if pointed is not None:
            right = 0.0
            if did["bbox"] is not None:
                box, (heading, elevation) = corners(record, did["bbox"]), pointed
                middle = sum(turn for turn, _ in box) / len(box)
                right = float(inside((heading - math.floor(heading - middle + 0.5), elevation), box))
            found |= {"grounding": right, "grounding_spl": right * direct}
        return found
