"""What a picture shows of each thing, measured on its mask: the facts that questions are asked about.

A thing counts as seen where it covers at least `LEAST_SHARE` of the picture's pixels, and at least `LEAST_SHOWN` of
what it would cover if nothing stood before it. One that is not seen is never asked about, and neither is anything whose
answer it might change: where a red cube is hidden, nobody asks how many cubes there are, or whether there is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.spatial import ConvexHull

from envs.scenes.scene import Scene, Thing
from envs.scenes.vocabulary import ATTRIBUTES, SIZES, Pair

LEAST_SHARE, LEAST_SHOWN = 0.002, 0.55
RING = 0.75
"""How much of its outline's area a ring fills at least: its hole shows the table."""
SIDE_MARGIN, DEPTH_MARGIN = 0.08, 0.07
"""By how much two things must differ before one is called left of (part of the picture's width) or in front of the
other (metres along the table)."""


@dataclass(frozen=True)
class Fact:
    """One thing as the picture shows it.

    Attributes:
        shape, colour, size, texture: its words.
        seen: whether it may be asked about.
        pixels: how many show it.
        shown: the part of its outline that is not hidden, 0 to 1.
        box: x1, y1, x2, y2 of the pixels that show it; x2 and y2 are the first beyond it. All 0 where none does.
        column, row: its middle in the picture, as parts of the side.
        depth: how far away its middle is along the table, metres, from the point that the camera looks at.
    """

    shape: str
    colour: str
    size: str
    texture: str
    seen: bool
    pixels: int
    shown: float
    box: tuple[int, int, int, int]
    column: float
    row: float
    depth: float

    @property
    def pair(self) -> Pair:
        return self.shape, self.colour

    @property
    def radius(self) -> float:
        return SIZES[self.size]

    def word(self, attribute: str) -> str:
        """Its `size`, `texture`, `colour` or `shape`."""
        return str(getattr(self, attribute))

    def words(self) -> tuple[str, ...]:
        """All four, in the order of `ATTRIBUTES`."""
        return tuple(self.word(attribute) for attribute in ATTRIBUTES)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Fact:
        return cls(**{**saved, "box": tuple(saved["box"])})


def look(scene: Scene, mask: np.ndarray) -> list[Fact]:
    """The facts of a picture.

    Args:
        scene: what was drawn.
        mask: which thing each pixel shows, (H, W), as renderers give it.
    """
    away = scene.camera.ground()[1]
    middles = scene.camera.project(np.array([thing.middle for thing in scene.things]).reshape(-1, 3))
    facts = []
    for i, (thing, (column, row)) in enumerate(zip(scene.things, middles, strict=True)):
        rows, columns = np.nonzero(mask == i)
        shown = min(1.0, len(rows) / max(outline_pixels(scene, thing, mask.shape[0]), 1.0))
        box = (
            (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
            if len(rows)
            else (0,) * 4
        )
        seen = len(rows) >= LEAST_SHARE * mask.size and shown >= LEAST_SHOWN
        depth = float((np.array(thing.place) - scene.camera.at[:2]) @ away)
        words = (thing.shape, thing.colour, thing.size, thing.texture)
        where = (round(float(column), 4), round(float(row), 4), round(depth, 4))
        facts.append(Fact(*words, seen, len(rows), round(shown, 3), box, *where))
    return facts


def outline_pixels(scene: Scene, thing: Thing, side: int) -> float:
    """How many pixels a thing would cover within the picture if it stood there alone."""
    flat = np.clip(scene.camera.project(thing.corners()), 0, 1)
    area = ConvexHull(flat).volume if np.ptp(flat, axis=0).min() > 1e-6 else 0.0
    return area * side * side * (RING if thing.shape == "ring" else 1.0)


def from_left(facts: Sequence[Fact]) -> list[Fact]:
    """The things that are seen, from left to right."""
    return sorted((fact for fact in facts if fact.seen), key=lambda fact: fact.column)


def from_near(facts: Sequence[Fact]) -> list[Fact]:
    """The things that are seen, the nearest to the camera first."""
    return sorted((fact for fact in facts if fact.seen), key=lambda fact: fact.depth)


def left_of(a: Fact, b: Fact) -> bool | None:
    """Whether the camera sees `a` to the left of `b`; None where that is not clear."""
    return None if abs(a.column - b.column) < SIDE_MARGIN else a.column < b.column


def in_front_of(a: Fact, b: Fact) -> bool | None:
    """Whether `a` is nearer to the camera than `b`; None where that is not clear."""
    return None if abs(a.depth - b.depth) < DEPTH_MARGIN else a.depth < b.depth
