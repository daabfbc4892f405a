"""What a house is: rooms, doors and objects made of boxes and upright cylinders, as plain data that JSON can hold."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embodied.files import read_json, write_json
from envs.house.categories import MP3D_ID

VERSION = 1
"""Raised when the same seed would give another house, or when the JSON changes."""

PATTERNS = ("plain", "checker", "planks", "stripes", "bricks", "carpet", "tiles", "dots")
SHAPES = ("box", "cylinder")
WALL = 0.05
"""Half of a wall's thickness in metres: each of two neighbours owns the half on its own side, with its own paint."""

Rectangle = tuple[float, float, float, float]
"""x0, y0, x1, y1 in metres."""


@dataclass(frozen=True)
class Material:
    """Two colours (red, green, blue in 0..255) laid out as a pattern whose period is `scale` metres."""

    primary: tuple[int, int, int]
    secondary: tuple[int, int, int]
    pattern: str = "plain"
    scale: float = 0.5


@dataclass(frozen=True)
class Part:
    """A box or an upright cylinder, which fills its bounds x0, y0, z0, x1, y1, z1 (metres)."""

    shape: str
    bounds: tuple[float, float, float, float, float, float]
    material: Material


@dataclass(frozen=True)
class HouseObject:
    """One thing with a category, in one room; `on` is the place in `HouseSpec.objects` of what it stands on, or -1."""

    category: str
    colour: str
    room: int
    parts: tuple[Part, ...]
    on: int = -1

    @property
    def footprint(self) -> Rectangle:
        """The smallest rectangle in the plan around all parts."""
        bounds = [part.bounds for part in self.parts]
        return (
            min(b[0] for b in bounds),
            min(b[1] for b in bounds),
            max(b[3] for b in bounds),
            max(b[4] for b in bounds),
        )

    @property
    def centre(self) -> tuple[float, float, float]:
        """The middle of the bounds of all parts."""
        x0, y0, x1, y1 = self.footprint
        low, high = min(p.bounds[2] for p in self.parts), max(p.bounds[5] for p in self.parts)
        return (x0 + x1) / 2, (y0 + y1) / 2, (low + high) / 2


@dataclass(frozen=True)
class Room:
    """A rectangle between the middles of its walls; its free inside is `WALL` smaller on each side."""

    kind: str
    bounds: Rectangle
    wall: Material
    floor: Material
    ceiling: Material

    @property
    def inside(self) -> Rectangle:
        x0, y0, x1, y1 = self.bounds
        return x0 + WALL, y0 + WALL, x1 - WALL, y1 - WALL

    @property
    def area(self) -> float:
        """Square metres of floor."""
        x0, y0, x1, y1 = self.inside
        return (x1 - x0) * (y1 - y0)


@dataclass(frozen=True)
class Door:
    """An opening between two rooms: `axis` 0 lies in a wall x = `position`, 1 in a wall y = `position`, and it spans
    `low` to `high` along the wall. The frame narrows it by `FRAME` on each side."""

    rooms: tuple[int, int]
    axis: int
    position: float
    low: float
    high: float
    material: Material

    @property
    def centre(self) -> tuple[float, float]:
        middle = (self.low + self.high) / 2
        return (self.position, middle) if self.axis == 0 else (middle, self.position)


@dataclass(frozen=True)
class HouseSpec:
    """A one-floor house. `agent_radius` (metres) is that of the widest agent for which every room is reachable.

    `attempt` counts the plans that were drawn for this seed before one met every constraint.
    """

    seed: int
    rooms: tuple[Room, ...]
    doors: tuple[Door, ...]
    objects: tuple[HouseObject, ...]
    height: float
    door_height: float
    agent_radius: float
    attempt: int = 0

    @property
    def bounds(self) -> Rectangle:
        """The smallest rectangle around all rooms."""
        boxes = [room.bounds for room in self.rooms]
        return min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes)

    def room_at(self, x: float, y: float) -> int:
        """The place in `rooms` of the room that holds a point of the plan, or -1."""
        for place, room in enumerate(self.rooms):
            x0, y0, x1, y1 = room.bounds
            if x0 <= x < x1 and y0 <= y < y1:
                return place
        return -1

    def to_dict(self) -> dict[str, Any]:
        return {"format": "embodied-house", "version": VERSION, **dataclasses.asdict(self)}

    def to_json(self) -> str:
        """One line of JSON: the same bytes for the same house."""
        return json.dumps(self.to_dict(), separators=(",", ":"), allow_nan=False)

    def save(self, path: str | Path) -> None:
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> HouseSpec:
        """Read a house from JSON.

        Raises:
            ValueError: the file is not JSON, not a house, of another version, or has a value that no house can have.
        """
        return cls.from_dict(read_json(path), str(path))

    @classmethod
    def from_dict(cls, value: Any, where: str = "this dictionary") -> HouseSpec:
        """The inverse of `to_dict`.

        Raises:
            ValueError: `where` is not a house of this version, with the field that is wrong.
        """
        if not isinstance(value, dict) or value.get("format") != "embodied-house":
            raise ValueError(f"{where} is not a house: it should be an object with format: embodied-house")
        if value.get("version") != VERSION:
            raise ValueError(
                f"{where} is a house of version {value.get('version')}; this program reads version {VERSION}"
            )
        try:
            return _check(
                cls(
                    seed=int(value["seed"]),
                    rooms=tuple(
                        Room(
                            str(r["kind"]),
                            _numbers(r["bounds"], 4),
                            *(_material(r[k]) for k in ("wall", "floor", "ceiling")),
                        )
                        for r in value["rooms"]
                    ),
                    doors=tuple(
                        Door(
                            (int(d["rooms"][0]), int(d["rooms"][1])),
                            int(d["axis"]),
                            float(d["position"]),
                            float(d["low"]),
                            float(d["high"]),
                            _material(d["material"]),
                        )
                        for d in value["doors"]
                    ),
                    objects=tuple(
                        HouseObject(
                            str(o["category"]),
                            str(o["colour"]),
                            int(o["room"]),
                            tuple(
                                Part(str(p["shape"]), _numbers(p["bounds"], 6), _material(p["material"]))
                                for p in o["parts"]
                            ),
                            int(o["on"]),
                        )
                        for o in value["objects"]
                    ),
                    height=float(value["height"]),
                    door_height=float(value["door_height"]),
                    agent_radius=float(value["agent_radius"]),
                    attempt=int(value["attempt"]),
                )
            )
        except KeyError as error:
            raise ValueError(f"{where} is not a whole house: {error} is missing") from None
        except (TypeError, AttributeError, IndexError, ValueError) as error:
            raise ValueError(f"{where} is not a house: {error}") from None


def _numbers(values: Any, count: int) -> Any:
    numbers = tuple(float(v) for v in values)
    if len(numbers) != count or not all(math.isfinite(v) for v in numbers):
        raise ValueError(f"{list(values)} should be {count} finite numbers")
    return numbers


def _material(value: Any) -> Material:
    colours = [tuple(int(c) for c in value[key]) for key in ("primary", "secondary")]
    if any(len(c) != 3 or min(c) < 0 or max(c) > 255 for c in colours):
        raise ValueError(f"colours {colours} should be three numbers from 0 to 255")
    if value["pattern"] not in PATTERNS:
        raise ValueError(f"pattern {value['pattern']} should be one of {', '.join(PATTERNS)}")
    scale = float(value["scale"])
    if not 0 < scale < 100:
        raise ValueError(f"a pattern's scale of {scale} should be above 0 and below 100 m")
    return Material(colours[0], colours[1], value["pattern"], scale)  # type: ignore[arg-type]


def _check(spec: HouseSpec) -> HouseSpec:
    if not spec.rooms:
        raise ValueError("it has no rooms")
    if not 1 <= spec.height <= 20 or not 0 < spec.agent_radius < 1:
        raise ValueError(f"a ceiling at {spec.height} m and an agent of radius {spec.agent_radius} m are not a home's")
    if not 0 < spec.door_height <= spec.height:
        raise ValueError(f"doors of {spec.door_height} m should be lower than the ceiling at {spec.height} m")
    for place, item in enumerate(spec.objects):
        if item.category not in MP3D_ID:
            raise ValueError(f"object {place} has category {item.category}, which Matterport3D does not have")
        if not 0 <= item.room < len(spec.rooms):
            raise ValueError(f"object {place} is in room {item.room}; rooms are 0 to {len(spec.rooms) - 1}")
        if not item.parts:
            raise ValueError(f"object {place} has no parts")
        for part in item.parts:
            x0, y0, z0, x1, y1, z1 = part.bounds
            if part.shape not in SHAPES or x0 >= x1 or y0 >= y1 or z0 >= z1:
                raise ValueError(f"object {place} has a {part.shape} with bounds {part.bounds}")
    for place, door in enumerate(spec.doors):
        if not all(0 <= room < len(spec.rooms) for room in door.rooms) or door.axis not in (0, 1):
            raise ValueError(f"door {place} joins rooms {door.rooms} along axis {door.axis}")
    return spec
