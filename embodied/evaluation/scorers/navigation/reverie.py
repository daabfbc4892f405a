"""REVERIE: go to where a named object is seen, and say which it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from embodied.evaluation.scorers.base import Record, Unit, wrong
from embodied.evaluation.scorers.navigation.paths import efficiency, walked
from embodied.evaluation.scorers.navigation.steps import GraphScorer
from embodied.files import read_json


class Sights:
    """Which objects are seen from which viewpoint: REVERIE's folder of `<scan>_<viewpoint>.json` files.

    A file is `{viewpoint: {object: {"name", "visible_pos": [views], "bbox2d": [...]}}}`; an object is seen where
    `visible_pos` is not empty.

    Raises:
        ValueError: it is no folder; on use, a file is of another format.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"there is no folder {folder} with <scan>_<viewpoint>.json files of boxes")
        self._from: dict[str, dict[str, set[str]]] = {}

    def of(self, scan: str, thing: str) -> set[str]:
        """The viewpoints that see an object."""
        if scan not in self._from:
            self._from[scan] = self._read(scan)
        return self._from[scan].get(thing, set())

    def _read(self, scan: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for file in sorted(self.folder.glob(f"{scan}_*.json")):
            content = read_json(file)
            try:
                for viewpoint, things in content.items():
                    for thing, box in things.items():
                        if box["visible_pos"]:
                            found.setdefault(str(thing), set()).add(viewpoint)
            except (AttributeError, KeyError, TypeError):
                raise ValueError(
                    f"{file} is no file of boxes: {{viewpoint: {{object: {{visible_pos, bbox2d}}}}}} is needed"
                ) from None
        return found


class REVERIE(GraphScorer):
    """Success is to end at a viewpoint from which the object is seen, however far that is from the annotated end.

    `rgs` (remote grounding success) is that the object named is the right one, as text, whether or not the agent went
    there; `rgspl` weights it by the path's length. Both are left out where predictions name no object.

    Args:
        connectivity: the folder of `<scan>_connectivity.json` files.
        boxes: the folder of `<scan>_<viewpoint>.json` files. Those that come with the first version of the data do
            not fit the second.
        reference_length: what SPL holds the walked length against: the `shortest` way from start to the annotated end,
            as the official scorer does, or the `annotated` path and at least 1 cm, as DUET's family does.
        edges: whether a jump between viewpoints that are not joined is an error; officially it counts as the shortest
            way between them.

    References have `scan`, `path` and `objId`; predictions `path` and `predObjId` (or `pred_objid`).
    """

    needs = ("scan", "path", "objId")
    figures: ClassVar[Mapping[str, Unit]] = {
        "success": "rate",
        "spl": "rate",
        "oracle_success": "rate",
        "rgs": "rate",
        "rgspl": "rate",
        "path_length": "number",
    }

    def __init__(
        self,
        connectivity: str,
        boxes: str,
        reference_length: Literal["shortest", "annotated"] = "shortest",
        edges: bool = False,
    ) -> None:
        super().__init__(connectivity, edges)
        if reference_length not in ("shortest", "annotated"):
            raise ValueError(f"REVERIE: reference_length is shortest or annotated, got {reference_length}")
        self.sights, self.reference_length = Sights(boxes), reference_length

    def episode(self, record: Record) -> dict[str, float]:
        house, thing = self.house(record), str(record.reference["objId"])
        reference = self.rows(record, house, record.reference["path"])
        rows = self.walk(record, house, reference[0])
        seen_from = self.sights.of(house.scan, thing)
        if not seen_from:
            raise wrong(record, f"is about object {thing}, which no viewpoint of {house.scan} sees in the boxes")
        goals = np.array([name in seen_from for name in house.names])
        taken = walked(house.distances, rows)
        if self.reference_length == "shortest":
            direct = efficiency(float(house.distances[reference[0], reference[-1]]), taken)
        else:
            direct = efficiency(walked(house.distances, reference), taken, least=0.01)
        won = float(goals[rows[-1]])
        found = {"success": won, "spl": won * direct, "oracle_success": float(goals[rows].any()), "path_length": taken}
        said = record.prediction.get("predObjId", record.prediction.get("pred_objid"))
        if said is not None:
            right = float(str(said) == thing)
            found |= {"rgs": right, "rgspl": right * direct}
        return found
