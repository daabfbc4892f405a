"""What the exporters share: a house's surfaces in the world frame, with names that say what each is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from envs.house.categories import MP3D_ID
from envs.house.plan import GRID
from envs.house.scene import Scene

SLAB = 0.05
"""Metres: how thick floors and ceilings are where they have to be solid; they lie outside the rooms."""


@dataclass(frozen=True)
class Piece:
    """A box or upright cylinder of a house.

    Attributes:
        row: of the scene's `colours`, `pattern`, `scale`, `semantic` and `instance`.
        bounds: (6,) x0, y0, z0, x1, y1, z1, metres.
        is_round: whether it is a cylinder.
        kind: `part`, `floor` or `ceiling`.
    """

    row: int
    bounds: np.ndarray
    is_round: bool
    kind: str = "part"


def names(scene: Scene) -> list[str]:
    """A name per instance: its category, and its number so that no two are the same (`chair_31`)."""
    return [f"{item.category}_{number}" for number, item in enumerate(scene.instances)]


def about(scene: Scene, number: int) -> dict[str, str | int]:
    """What an instance is, as plain data."""
    item = scene.instances[number]
    return {"category": item.category, "category_id": MP3D_ID[item.category], "instance": number, "room": item.room}


def room_rectangles(scene: Scene) -> np.ndarray:
    """(R, 4) x0, y0, x1, y1 of the rooms, between the middles of their walls."""
    found = []
    for room in range((len(scene.colours) - scene.parts) // 2):
        i, j = np.nonzero(scene.rooms == room)
        found.append([i.min(), j.min(), i.max() + 1, j.max() + 1])
    return np.array(found, np.float64) / GRID


def pieces(scene: Scene) -> Iterator[Piece]:
    """All parts, then a slab under each room and one above."""
    for row, bounds in enumerate(scene.bounds.astype(np.float64).round(4)):
        yield Piece(row, bounds, bool(scene.round[row]))
    rectangles = room_rectangles(scene)
    for kind, low, high in (("floor", -SLAB, 0.0), ("ceiling", scene.height, scene.height + SLAB)):
        for room, (x0, y0, x1, y1) in enumerate(rectangles):
            row = scene.parts + room + (len(rectangles) if kind == "ceiling" else 0)
            yield Piece(row, np.array([x0, y0, low, x1, y1, high]), False, kind)
