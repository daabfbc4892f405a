"""Putting furniture into rooms: against walls where it belongs there, clear of doors, leaving every room walkable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from envs.house.furniture import FIXED, HANGING, PIECES, ROOMS, Piece, Shape, dye
from envs.house.spec import WALL, Door, HouseObject, HouseSpec, Material, Part, Rectangle

STEP = 0.05
"""Side of the cells in metres on which walkability is checked, conservatively."""
DOOR_CLEARANCE = 0.9
"""Metres in front of a door, on either side, that stay empty over its whole width."""
GAP = 0.02
REACH = 0.8
"""Every object on the floor has a place to stand within this many metres of its footprint."""


class Furnisher:
    """Adds objects to a bare house, drawing from `rng`."""

    def __init__(self, spec: HouseSpec, rng: np.random.Generator) -> None:
        self.spec, self.rng = spec, rng
        self.objects: list[HouseObject] = []

    def furnish(self) -> HouseSpec | None:
        """The house with its furniture; None when a room is left without all of the pieces that make it one."""
        for place, room in enumerate(self.spec.rooms):
            taken: list[Rectangle] = []
            keep = [clearance(door) for door in self.spec.doors if place in door.rooms]
            hung: list[tuple[int, float, float, float]] = []  # wall, from, to, height of what stands there
            needed = {name for name, chance in ROOMS[room.kind] if chance == 1}
            if room.kind == "bedroom":
                beds = ("bed", "single bed") if self.rng.random() < 0.7 else ("single bed",)
                if not any(self._place(place, PIECES[name], taken, keep, hung) for name in beds):
                    return None
            for name, chance in ROOMS[room.kind]:
                if self.rng.random() < chance and self._place(place, PIECES[name], taken, keep, hung):
                    needed.discard(name)
            if len(needed) > (1 if room.kind in ("living room", "dining room", "office") else 0):
                return None
            self._windows(place, hung)
            for name, chance in HANGING[room.kind]:
                if self.rng.random() < chance:
                    self._hang(place, PIECES[name], hung)
        return replace(self.spec, objects=tuple(self.objects))

    def _place(
        self,
        place: int,
        piece: Piece,
        taken: list[Rectangle],
        keep: list[Rectangle],
        hung: list[tuple[int, float, float, float]],
    ) -> bool:
        """Try random places for one piece; the first that keeps the room walkable is taken."""
        x0, y0, x1, y1 = self.spec.rooms[place].inside
        for _ in range(24):
            wall = int(self.rng.integers(4))
            long = (x1 - x0) if wall % 2 == 0 else (y1 - y0)
            away = 0.01
            if piece.free_standing:
                deep = (y1 - y0) if wall % 2 == 0 else (x1 - x0)
                away = 0.05 + float(self.rng.random()) * max(0.0, deep - piece.depth - 0.1)
            if long < piece.width + 0.1:
                continue
            along = float(self.rng.random()) * (long - piece.width - 0.1) + 0.05
            along, away = round(along / 0.05) * 0.05, round(away, 2)
            area = turned((0.0, 0.0, piece.width, piece.depth), wall, along, away, (x0, y0, x1, y1))
            front = turned((0.0, 0.0, piece.width, piece.depth + piece.front), wall, along, away, (x0, y0, x1, y1))
            if area[0] < x0 or area[1] < y0 or area[2] > x1 or area[3] > y1:
                continue
            if any(overlap(area, other, GAP) for other in taken) or any(overlap(area, other) for other in keep):
                continue
            if not piece.free_standing and any(overlap(front, other) for other in taken):
                continue
            if not self._walkable(place, [*taken, area], keep):
                continue
            taken.append(area)
            self._add(place, piece, wall, along, away)
            if not piece.free_standing:
                high = max(shape[2][5] for shape in [*piece.parts, *(s for c in piece.carries for s in c[2])])
                hung.append((wall, along, along + piece.width, high))
            return True
        return False

    def _add(self, place: int, piece: Piece, wall: int, along: float, away: float) -> None:
        room = self.spec.rooms[place]

        def build(category: str, colours: tuple[str, ...], shapes: tuple[Shape, ...], on: int) -> None:
            colour = colours[int(self.rng.integers(len(colours)))]
            main = dye(self.rng, colour, piece.patterns if on < 0 else ("plain", "stripes"))
            parts = tuple(self._part(shape, main, wall, along, away, room.inside) for shape in shapes)
            self.objects.append(HouseObject(category, colour, place, parts, on))

        build(piece.category, piece.colours, piece.parts, -1)
        below = len(self.objects) - 1
        for category, colours, shapes in piece.carries:
            build(category, colours, shapes, below)

    def _part(self, shape: Shape, main: Material, wall: int, along: float, away: float, inside: Rectangle) -> Part:
        slot, kind, (x0, y0, z0, x1, y1, z1) = shape
        a, b, c, d = turned((x0, y0, x1, y1), wall, along, away, inside)
        z1 = min(z1, self.spec.height)
        bounds = tuple(round(float(v), 3) for v in (a, b, z0, c, d, z1))
        return Part(kind, bounds, main if slot == "main" else FIXED[slot])  # type: ignore[arg-type]

    def _hang(self, place: int, piece: Piece, hung: list[tuple[int, float, float, float]]) -> None:
        low = min(shape[2][2] for shape in piece.parts)
        spot = self._free_wall(place, piece.width, low, hung)
        if spot is not None:
            self._add(place, piece, spot[0], spot[1], 0.0)
            hung.append((spot[0], spot[1], spot[1] + piece.width, 9.0))

    def _free_wall(
        self,
        place: int,
        width: float,
        low: float,
        hung: list[tuple[int, float, float, float]],
        walls: tuple[int, ...] = (0, 1, 2, 3),
    ) -> tuple[int, float] | None:
        x0, y0, x1, y1 = self.spec.rooms[place].inside
        for _ in range(16):
            wall = walls[int(self.rng.integers(len(walls)))]
            long = (x1 - x0) if wall % 2 == 0 else (y1 - y0)
            if long < width + 0.3:
                continue
            along = round((0.15 + float(self.rng.random()) * (long - width - 0.3)) / 0.05) * 0.05
            area = turned((0, 0, width, 0.2), wall, along, 0.0, (x0, y0, x1, y1))
            doors = [clearance(door) for door in self.spec.doors if place in door.rooms]
            if any(overlap(area, door, 0.05) for door in doors):
                continue
            if all(
                w != wall or along >= b + 0.08 or along + width <= a - 0.08 or high < low - 0.05
                for w, a, b, high in hung
            ):
                return wall, along
        return None

    def _windows(self, place: int, hung: list[tuple[int, float, float, float]]) -> None:
        """One or two windows in walls that face out."""
        room = self.spec.rooms[place]
        bx0, by0, bx1, by1 = room.bounds
        x0, y0, x1, y1 = room.inside
        out = []
        for wall in range(4):
            middle = (
                ((bx0 + bx1) / 2, by0 - 0.2),
                (bx1 + 0.2, (by0 + by1) / 2),
                ((bx0 + bx1) / 2, by1 + 0.2),
                (bx0 - 0.2, (by0 + by1) / 2),
            )
            strip = (
                (bx0, by0 - 0.3, bx1, by0 - 0.1), (bx1 + 0.1, by0, bx1 + 0.3, by1),
                (bx0, by1 + 0.1, bx1, by1 + 0.3), (bx0 - 0.3, by0, bx0 - 0.1, by1),
            )[wall]  # fmt: skip
            if self.spec.room_at(*middle[wall]) < 0 and not any(overlap(strip, r.bounds) for r in self.spec.rooms):
                out.append(wall)
        sky = Material((176, 212, 240), (198, 226, 246), "stripes", 0.9)
        frame = FIXED["white"]
        for _ in range(2 if out and room.area > 12 else 1 if out else 0):
            spot = self._free_wall(place, 1.2, 0.95, hung, tuple(out))
            if spot is None:
                continue
            wall, along = spot
            shapes = [(frame, (0.0, 0.0, 0.95, 1.2, 0.03, 2.1)), (sky, (0.06, 0.03, 1.01, 0.58, 0.035, 2.04)),
                      (sky, (0.62, 0.03, 1.01, 1.14, 0.035, 2.04))]  # fmt: skip
            parts = []
            for material, (a, b, low, c, d, high) in shapes:
                p, q, r, s = turned((a, b, c, d), wall, along, 0.0, (x0, y0, x1, y1))
                parts.append(Part("box", tuple(round(float(v), 3) for v in (p, q, low, r, s, high)), material))  # type: ignore[arg-type]
            self.objects.append(HouseObject("window", "white", place, tuple(parts)))
            hung.append((wall, along, along + 1.2, 9.0))

    def _walkable(self, place: int, taken: list[Rectangle], keep: list[Rectangle]) -> bool:
        """Whether all doors stay joined inside the room, and each piece can be walked up to.

        Cells count as free only when a square around the agent's disc is free, so what passes here passes for a disc.
        """
        radius = self.spec.agent_radius + 0.03
        x0, y0, x1, y1 = self.spec.rooms[place].inside
        free = np.ones((int((x1 - x0) / STEP), int((y1 - y0) / STEP)), bool)
        edge = int(np.ceil(radius / STEP))
        free[:edge], free[-edge:], free[:, :edge], free[:, -edge:] = False, False, False, False
        for a, b, c, d in taken:
            free[_cells(a - radius - x0, c + radius - x0), _cells(b - radius - y0, d + radius - y0)] = False
        labels, count = ndimage.label(free)
        if not count:
            return False
        # a stretch in front of each door, one agent deep, has to be in the one large free piece
        main = int(np.bincount(labels.ravel())[1:].argmax()) + 1
        for a, b, c, d in keep:
            seen = labels[
                _cells(max(a, x0) - x0 + radius, min(c, x1) - x0 - radius),
                _cells(max(b, y0) - y0 + radius, min(d, y1) - y0 - radius),
            ]
            if seen.size == 0 or not (seen == main).any():
                return False
        for a, b, c, d in taken:
            near = labels[_cells(a - REACH - x0, c + REACH - x0), _cells(b - REACH - y0, d + REACH - y0)]
            if not (near == main).any():
                return False
        return bool((labels == main).sum() * STEP**2 > 0.3)


def _cells(low: float, high: float) -> slice:
    return slice(max(0, int(np.floor(low / STEP))), max(0, int(np.ceil(high / STEP))))


def turned(area: Rectangle, wall: int, along: float, away: float, inside: Rectangle) -> Rectangle:
    """A rectangle in a piece's own frame, moved to wall 0 (low y), 1 (high x), 2 (high y) or 3 (low x) of a room."""
    x0, y0, x1, y1 = inside
    a, b, c, d = area[0] + along, area[1] + away, area[2] + along, area[3] + away
    return ((x0 + a, y0 + b, x0 + c, y0 + d), (x1 - d, y0 + a, x1 - b, y0 + c),
            (x1 - c, y1 - d, x1 - a, y1 - b), (x0 + b, y1 - c, x0 + d, y1 - a))[wall]  # fmt: skip


def overlap(a: Rectangle, b: Rectangle, gap: float = 0.0) -> bool:
    """Whether two rectangles come closer than `gap` metres along both axes."""
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap


def clearance(door: Door) -> Rectangle:
    """The part of the plan on both sides of a door that stays empty."""
    near, far = door.position - WALL - DOOR_CLEARANCE, door.position + WALL + DOOR_CLEARANCE
    return (near, door.low, far, door.high) if door.axis == 0 else (door.low, near, door.high, far)
