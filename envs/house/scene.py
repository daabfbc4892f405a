"""A house as flat arrays of boxes and cylinders: what the renderers, the navigator and the exporters read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.house.categories import MP3D_ID
from envs.house.plan import FRAME, GRID
from envs.house.spec import PATTERNS, WALL, Door, HouseSpec, Material, Part, Rectangle


@dataclass(frozen=True)
class Instance:
    """What an instance id stands for: its category, its room, and its place in `HouseSpec.objects` or -1."""

    category: str
    room: int
    object: int = -1


@dataclass(frozen=True)
class Scene:
    """Arrays of a house with N boxes and cylinders (walls first) and R rooms; float32, metres.

    `colours`, `pattern`, `scale`, `semantic` and `instance` have N + 2 R rows: the parts, then each room's floor, then
    each room's ceiling. `instances[i]` describes instance id i; 0 is nothing.
    """

    bounds: np.ndarray
    """(N, 6) x0, y0, z0, x1, y1, z1."""
    round: np.ndarray
    """(N,) 1 where the part is a cylinder, else 0; uint8."""
    walls: int
    """The first so many parts reach from the floor to the ceiling."""
    colours: np.ndarray
    """(N + 2 R, 6) both colours in 0..255."""
    pattern: np.ndarray
    scale: np.ndarray
    semantic: np.ndarray
    """uint8, Matterport3D's category ids."""
    instance: np.ndarray
    """uint16."""
    rooms: np.ndarray
    """(cells along x, cells along y) the room of each cell of 1 / GRID metres; int16, -1 outside."""
    height: float
    instances: tuple[Instance, ...]

    @property
    def parts(self) -> int:
        return len(self.bounds)


def wall_pieces(spec: HouseSpec, place: int) -> list[tuple[int, tuple[float, ...], bool]]:
    """The boxes of a room's four walls as (side, bounds, whole height?), with openings for its doors.

    Sides are 0 low y, 1 high x, 2 high y, 3 low x. Each room owns the half of the wall on its own side.
    """
    x0, y0, x1, y1 = spec.rooms[place].bounds
    strips: tuple[Rectangle, ...] = (
        (x0, y0, x1, y0 + WALL), (x1 - WALL, y0, x1, y1), (x0, y1 - WALL, x1, y1), (x0, y0, x0 + WALL, y1),
    )  # fmt: skip
    pieces = []
    for side, (a, b, c, d) in enumerate(strips):
        axis, position = ((1, y0), (0, x1), (1, y1), (0, x0))[side]
        low, high = (a, c) if axis == 1 else (b, d)

        def piece(start: float, end: float, bottom: float, strip: Rectangle, axis: int) -> tuple[float, ...]:
            p, q, r, s = (start, strip[1], end, strip[3]) if axis == 1 else (strip[0], start, strip[2], end)
            return p, q, bottom, r, s, spec.height

        doors = [d for d in spec.doors if place in d.rooms and d.axis == axis and abs(d.position - position) < 1e-6]
        for door in sorted(doors, key=lambda d: d.low):
            if door.low < low or door.high > high:
                continue
            pieces.append((side, piece(low, door.low, 0.0, (a, b, c, d), axis), True))
            pieces.append((side, piece(door.low, door.high, spec.door_height, (a, b, c, d), axis), False))
            low = door.high
        pieces.append((side, piece(low, high, 0.0, (a, b, c, d), axis), True))
    return pieces


def door_frame(spec: HouseSpec, door: Door) -> list[Part]:
    """Two posts and a beam, a little thicker than the wall."""
    near, far = door.position - WALL - 0.01, door.position + WALL + 0.01
    top = spec.door_height
    spans = (
        (door.low, door.low + FRAME, 0.0, top),
        (door.high - FRAME, door.high, 0.0, top),
        (door.low + FRAME, door.high - FRAME, top - FRAME, top),
    )
    return [
        Part(
            "box",
            (near, a, low, far, b, high) if door.axis == 0 else (a, near, low, b, far, high),
            door.material,
        )
        for a, b, low, high in spans
    ]


def build_scene(spec: HouseSpec) -> Scene:
    """Flatten a house."""
    whole: list[tuple[tuple[float, ...], int, Material, int]] = []  # bounds, round, material, instance
    rest: list[tuple[tuple[float, ...], int, Material, int]] = []
    instances = [Instance("void", -1)]

    def new(category: str, room: int, place: int = -1) -> int:
        instances.append(Instance(category, room, place))
        return len(instances) - 1

    floors = [new("floor", place) for place in range(len(spec.rooms))]
    ceilings = [new("ceiling", place) for place in range(len(spec.rooms))]
    for place, room in enumerate(spec.rooms):
        sides = [new("wall", place) for _ in range(4)]
        for side, bounds, tall in wall_pieces(spec, place):
            (whole if tall else rest).append((bounds, 0, room.wall, sides[side]))
    for door in spec.doors:
        number = new("door", door.rooms[0])
        rest += [(part.bounds, 0, part.material, number) for part in door_frame(spec, door)]
    for place, item in enumerate(spec.objects):
        number = new(item.category, item.room, place)
        rest += [(p.bounds, int(p.shape == "cylinder"), p.material, number) for p in item.parts]
    parts = whole + rest
    surfaces = [(m, i) for _, _, m, i in parts]
    surfaces += [(room.floor, number) for room, number in zip(spec.rooms, floors, strict=True)]
    surfaces += [(room.ceiling, number) for room, number in zip(spec.rooms, ceilings, strict=True)]
    _, _, x1, y1 = spec.bounds
    rooms = np.full((round(x1 * GRID) + 1, round(y1 * GRID) + 1), -1, np.int16)
    for place, room in enumerate(spec.rooms):
        a, b, c, d = (round(value * GRID) for value in room.bounds)
        rooms[a:c, b:d] = place
    return Scene(
        bounds=np.array([p[0] for p in parts], np.float32).reshape(-1, 6),
        round=np.array([p[1] for p in parts], np.uint8),
        walls=len(whole),
        colours=np.array([(*m.primary, *m.secondary) for m, _ in surfaces], np.float32),
        pattern=np.array([PATTERNS.index(m.pattern) for m, _ in surfaces], np.uint8),
        scale=np.array([m.scale for m, _ in surfaces], np.float32),
        semantic=np.array([MP3D_ID[instances[i].category] for _, i in surfaces], np.uint8),
        instance=np.array([i for _, i in surfaces], np.uint16),
        rooms=rooms,
        height=float(spec.height),
        instances=tuple(instances),
    )
