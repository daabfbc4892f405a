"""Referring expressions: the share of boxes that overlap the right one by half (RefCOCO, RefCOCO+, RefCOCOg)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from embodied.evaluation.scorers.base import Record, Scorer, Scores, wrong

NUMBER = re.compile(r"-?\d+(?:\.\d+)?|-?\.\d+")
BRACKETED = re.compile(r"[\[(<{][^\[\](){}<>]*[\])>}]")
Coordinates = Literal["999", "1000", "1", "pixels"]
Box = tuple[float, float, float, float]


class BoxAccuracy(Scorer):
    """Acc@0.5 (Kazemzadeh et al. 2014; Yu et al. 2016): intersection over union of 0.5 or more.

    The first box in an answer counts: four numbers x1, y1, x2, y2, together in one pair of brackets, or in two pairs as
    Qwen-VL writes them, `(x1,y1),(x2,y2)`, or the only four numbers there are. An answer without a box, or with more
    numbers and no brackets, is wrong, and counted. Corners may come in either order.

    Args:
        coordinates: what the model's numbers mean: `999` from 0 to 999 over width and height (Qwen-VL), `1000` of a
            thousand (InternVL), `1` fractions (LLaVA, Shikra), `pixels`.
        threshold: of the overlap.
        form: of the reference's box: `xyxy` corners, `xywh` corner and size (RefCOCO's own files).
        reference_coordinates: what the reference's numbers mean, as `coordinates`.
        by: names of reference fields to give figures for each value of.

    References have `box`, and `width` and `height` of the picture in pixels unless both sides count alike.
    """

    needs = ("box",)

    def __init__(
        self,
        coordinates: Coordinates = "999",
        threshold: float = 0.5,
        form: Literal["xyxy", "xywh"] = "xyxy",
        reference_coordinates: Coordinates = "pixels",
        by: Sequence[str] = ("split",),
    ) -> None:
        for name, value in {"coordinates": coordinates, "reference_coordinates": reference_coordinates}.items():
            if str(value) not in ("999", "1000", "1", "pixels"):
                raise ValueError(f"BoxAccuracy: {name} is 999, 1000, 1 or pixels; got {value!r}")
        if form not in ("xyxy", "xywh"):
            raise ValueError(f"BoxAccuracy: form is xyxy or xywh; got {form!r}")
        if not 0 < threshold <= 1:
            raise ValueError(f"BoxAccuracy: threshold is above 0 and at most 1; got {threshold}")
        self.coordinates, self.reference_coordinates = str(coordinates), str(reference_coordinates)
        self.threshold, self.form, self.parts = threshold, form, tuple(by)

    def score(self, records: Sequence[Record]) -> Scores:
        """`acc@0.5` (or whatever the threshold is) and `mean_iou`."""
        self.check(records)
        overlaps, samples, unread = [], [], 0
        for record in records:
            wanted, width, height = self._reference(record)
            said = read_box(record.prediction)
            unread += said is None
            overlap = 0.0
            if said is not None:
                overlap = intersection_over_union(_scaled(said, self.coordinates, width, height), wanted)
            overlaps.append(overlap)
            samples.append(
                {"id": record.id, "prediction": record.prediction, "box": said, "iou": overlap}
                | {"score": float(overlap >= self.threshold)}
            )
        name = f"acc@{self.threshold:g}"
        notes = [f"{unread} answers hold no box and count as wrong"] if unread else []
        return Scores(
            {name: self.rate([overlap >= self.threshold for overlap in overlaps]), "mean_iou": self.mean(overlaps)},
            samples,
            self.by(
                records,
                self.parts,
                lambda places: {name: self.rate([overlaps[i] >= self.threshold for i in places])},
            ),
            notes,
        )

    def _reference(self, record: Record) -> tuple[Box, float, float]:
        """The right box in pixels, and the picture's size; in shares of 1 by 1 where no side speaks of pixels."""
        found = record.reference["box"]
        numbers = found if isinstance(found, list | tuple) else []
        if len(numbers) != 4 or not all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers):
            raise wrong(record, f"has the box {found!r}: four numbers are needed")
        size = [record.reference.get(name) for name in ("width", "height")]
        if all(isinstance(side, int | float) and side > 0 for side in size):
            width, height = (float(side) for side in size if side)
        elif self.coordinates != self.reference_coordinates and "pixels" in (
            self.coordinates,
            self.reference_coordinates,
        ):
            raise wrong(record, "has no width and height of its picture, without which pixels mean nothing")
        else:
            width = height = 1.0
        x, y, x2, y2 = (float(number) for number in numbers)
        box = (x, y, x + x2, y + y2) if self.form == "xywh" else (x, y, x2, y2)
        return _scaled(box, self.reference_coordinates, width, height), width, height


def read_box(answer: str) -> Box | None:
    """The first four numbers that an answer gives as a box, corners in order; None where it gives none."""
    pieces = [NUMBER.findall(piece) for piece in BRACKETED.findall(answer)]
    numbers = next((piece for piece in pieces if len(piece) == 4), None)
    if numbers is None:
        pairs = [piece for piece in pieces if len(piece) == 2]
        numbers = [*pairs[0], *pairs[1]] if len(pairs) >= 2 else NUMBER.findall(answer)
    if len(numbers) != 4:
        return None
    x1, y1, x2, y2 = (float(number) for number in numbers)
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def intersection_over_union(a: Box, b: Box) -> float:
    """Overlap of two boxes given by their corners, in [0, 1]; 0 where both are empty."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    area = sum(abs((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b))
    return shared / (area - shared) if area > shared else 0.0


def _scaled(box: Box, coordinates: str, width: float, height: float) -> Box:
    if coordinates == "pixels":
        return box
    x, y = width / float(coordinates), height / float(coordinates)
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y
