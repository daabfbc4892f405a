"""Instructions followed in continuous houses (VLN-CE: R2R-CE, RxR-CE), by the rules of its measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from embodied.evaluation.scorers.base import Record, Unit, wrong
from embodied.evaluation.scorers.navigation.paths import (
    efficiency,
    fast_warping,
    length,
    similarity,
    straight,
    warping,
    without_repeats,
)
from embodied.evaluation.scorers.navigation.reading import numbers
from embodied.evaluation.scorers.navigation.steps import EpisodeScorer
from embodied.evaluation.scorers.reading import read_gzip
from embodied.files import read_json


class VLNCE(EpisodeScorer):
    """Success is to call stop where the way to the goal is shorter than the threshold.

    Distances to the goal are geodesic, as the simulator measured them; lengths are sums of straight lines between
    positions. SPL is held against the distance to the goal at the start, as it was measured then. nDTW is over straight
    lines from positions, without repeats, to the ground truth's `locations` (not to `reference_path`, which is coarse).

    Args:
        ground_truth: the `..._gt.json.gz` file with `locations` by episode id; null leaves out nDTW and SDTW.
        threshold: metres.
        inclusive: whether a distance equal to the threshold counts (the scorer of CWP, ETPNav and GridMM); officially
            it does not.
        fast: FastDTW with radius 1, as VLN-CE's configurations have it, which is never below the exact warping; false:
            the exact one.
        by: keys of references to split the figures by.

    References are episodes; predictions have `positions`, `distances` and `stop`.
    """

    figures: ClassVar[Mapping[str, Unit]] = {
        "success": "rate",
        "spl": "rate",
        "oracle_success": "rate",
        "ndtw": "rate",
        "sdtw": "rate",
        "navigation_error": "number",
        "path_length": "number",
        "actions": "number",
    }

    def __init__(
        self,
        ground_truth: str | None,
        threshold: float = 3.0,
        inclusive: bool = False,
        fast: bool = True,
        by: Sequence[str] = (),
    ) -> None:
        if not threshold > 0:
            raise ValueError(f"VLNCE: threshold is more than 0 metres, got {threshold}")
        self.ground_truth, self.threshold, self.inclusive, self.fast = ground_truth, threshold, inclusive, fast
        self.parts, self.truths = tuple(by), {}
        if ground_truth is None:
            self.notes = ("nDTW and SDTW need the ground truth's locations, and are left out",)
            return
        file = Path(ground_truth)
        self.truths = read_gzip(file) if file.suffix == ".gz" else read_json(file)
        if not isinstance(self.truths, dict):
            raise ValueError(f"{file} is no ground truth: {{episode: {{locations: [[x, y, z], ...]}}}} is needed")

    def episode(self, record: Record) -> dict[str, float]:
        did = record.prediction
        taken = length(did["positions"])
        won = float(did["stop"] and self._near(did["distances"][-1]))
        found = {
            "success": won,
            "spl": won * efficiency(float(did["distances"][0]), taken),
            "oracle_success": float(self._near(did["distances"].min())),
            "navigation_error": float(did["distances"][-1]),
            "path_length": taken,
            "actions": float(len(did["positions"]) - 1 + did["stop"]),
        }
        if self.ground_truth is not None:
            truth = self.truths.get(record.id)
            locations = numbers(truth.get("locations"), 3) if isinstance(truth, dict) else None
            if locations is None:
                raise wrong(record, f"has no locations in {self.ground_truth}")
            positions = without_repeats(did["positions"])
            warped = fast_warping(positions, locations) if self.fast else warping(straight(positions, locations))
            similar = similarity(warped, len(locations), self.threshold)
            found |= {"ndtw": similar, "sdtw": won * similar}
        return found

    def _near(self, distance: float) -> bool:
        return bool(distance <= self.threshold if self.inclusive else distance < self.threshold)
