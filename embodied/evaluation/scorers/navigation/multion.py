"""MultiON: find several objects in a given order, and say `found` at each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from embodied.evaluation.scorers.base import Record, Unit, wrong
from embodied.evaluation.scorers.navigation.paths import efficiency, length
from embodied.evaluation.scorers.navigation.reading import numbers
from embodied.evaluation.scorers.navigation.steps import EpisodeScorer


class MultiON(EpisodeScorer):
    """`progress` is the share of objects found in order, `ppl` (progress by path length) weights it by the way walked.

    `found` near the object whose turn it is goes on to the next one; anywhere else it ends the episode. Officially near
    is at most the threshold, while progress counts only what is nearer than it: an object found at exactly the
    threshold is passed without progress. `ppl` = progress * d / max(p, d), where d is the sum of shortest ways from the
    start over the objects found so far and p what was walked until the last of them was found: what comes after costs
    nothing. `success` is to find all, and `spl` holds the whole walk against the sum of all shortest ways.

    Args:
        threshold: metres.

    References are episodes with `goals` in order. Predictions have `positions`; `found`, a list of [place in
    positions, distance to the object whose turn it is, geodesic]; and `goal_distances`, the shortest ways from the
    start to the first goal, from there to the second and so on.
    """

    needs = ("goals",)
    figures: ClassVar[Mapping[str, Unit]] = {
        "success": "rate",
        "progress": "rate",
        "ppl": "rate",
        "spl": "rate",
        "path_length": "number",
    }
    score_of = "ppl"

    def __init__(self, threshold: float = 1.5) -> None:
        if not threshold > 0:
            raise ValueError(f"MultiON: threshold is more than 0 metres, got {threshold}")
        self.threshold = threshold

    def episode(self, record: Record) -> dict[str, float]:
        positions, goals = record.prediction["positions"], record.reference["goals"]
        ways = self._ways(record, len(goals) if isinstance(goals, list) else 0)
        calls = self._calls(record, len(positions))
        turn, counted, at = 0, 0, 0
        for number, (place, distance) in enumerate(calls):
            if turn == len(ways) or (number and not calls[number - 1][1] <= self.threshold):
                raise wrong(record, "calls found after its episode was over: every goal was found, or one call missed")
            if distance <= self.threshold:
                turn, at = turn + 1, place
                counted += distance < self.threshold
        progress = counted / len(ways)
        shortest = float(np.sum(ways[:turn]))
        won = float(turn == len(ways))
        taken = length(positions)
        return {
            "success": won,
            "progress": progress,
            "ppl": progress * efficiency(shortest, length(positions[: at + 1])) if progress else 0.0,
            "spl": won * efficiency(float(np.sum(ways)), taken),
            "path_length": taken,
        }

    def _ways(self, record: Record, goals: int) -> np.ndarray:
        ways = numbers(record.prediction["goal_distances"], None)
        if ways is None or not goals or len(ways) != goals or (ways < 0).any():
            raise wrong(record, f"needs 'goal_distances', finite, in metres, one for each of its {goals} goals")
        return ways

    def _calls(self, record: Record, steps: int) -> list[tuple[int, float]]:
        calls: Any = record.prediction["found"]
        table = numbers(calls, 2) if calls else np.zeros((0, 2))
        if table is None or not isinstance(calls, list):
            raise wrong(record, "needs 'found' as a list of [place in positions, distance]")
        places = table[:, 0]
        if (places != places.astype(int)).any() or (places < 0).any() or (places >= steps).any():
            raise wrong(record, f"calls found at a place that is none of its {steps} positions")
        if (np.diff(places) < 0).any():
            raise wrong(record, "calls found at places that go back in time")
        return [(int(place), float(distance)) for place, distance in table]
