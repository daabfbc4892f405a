"""What happens on a way through a house: rooms entered, doors taken and where they are seen, things passed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from envs.house.naming import BIG, told_apart
from envs.house.simulator import wrap
from envs.house.spec import HouseSpec

STRIDE = 0.05
AHEAD, BEHIND = math.radians(30), math.radians(135)
"""Up to the first angle something is ahead, beyond the second behind, between them left or right."""
BESIDE = 1.0
"""Metres from the way to a thing that is passed."""


@dataclass(frozen=True)
class Passed:
    """A thing beside the way: its place in `HouseSpec.objects`, and `left` or `right`."""

    place: int
    side: str


@dataclass(frozen=True)
class Leg:
    """The part of a way that lies in one room.

    Attributes:
        room: its place in `HouseSpec.rooms`.
        towards: where its end (the next door, or the goal) is as one comes in: `ahead`, `left`, `right`, `behind`.
        passed: things beside the way, the most striking first.
        length: metres.
    """

    room: int
    towards: str
    passed: tuple[Passed, ...]
    length: float


def side_of(angle: float) -> str:
    """The word for a bearing in radians, positive to the left."""
    angle = wrap(angle)
    if abs(angle) <= AHEAD:
        return "ahead"
    return "behind" if abs(angle) > BEHIND else "left" if angle > 0 else "right"


def legs_of(house: HouseSpec, path: np.ndarray, heading: float) -> list[Leg]:
    """A way, (K, 2) corners, room by room.

    Args:
        heading: of the agent at the start, radians. Into each later room it looks straight through the door.
    """
    points = dense(path, STRIDE)
    rooms = np.array([house.room_at(x, y) for x, y in points])
    cuts = [0, *(np.flatnonzero(np.diff(rooms)) + 1).tolist(), len(points)]
    legs = []
    for first, last in pairwise(cuts):
        room = int(rooms[first])
        if first:
            heading = through_door(house, int(rooms[first - 1]), room, points[first], heading)
        exit_at = door_between(house, room, int(rooms[last]), points[last]) if last < len(points) else points[-1]
        away = exit_at - points[first]
        towards = side_of(math.atan2(away[1], away[0]) - heading)
        legs.append(Leg(room, towards, beside(house, room, points[first:last]), (last - first) * STRIDE))
    return legs


def dense(path: np.ndarray, stride: float) -> np.ndarray:
    """Points every `stride` metres along a way, and its end."""
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    at = np.append(np.arange(0, lengths[-1], stride), lengths[-1])
    return np.stack([np.interp(at, lengths, path[:, axis]) for axis in (0, 1)], 1)


def door_between(house: HouseSpec, one: int, other: int, near: np.ndarray) -> np.ndarray:
    """(2,) the middle of the door between two rooms nearest to a point; the point itself where there is none."""
    doors = [np.array(door.centre) for door in house.doors if set(door.rooms) == {one, other}]
    return min(doors, key=lambda centre: float(np.linalg.norm(centre - near)), default=near)


def through_door(house: HouseSpec, before: int, room: int, at: np.ndarray, heading: float) -> float:
    """The heading straight through the door by which a room is entered."""
    for door in house.doors:
        if set(door.rooms) == {before, room} and np.linalg.norm(np.array(door.centre) - at) < 1.0:
            x0, y0, x1, y1 = house.rooms[room].bounds
            if door.axis == 0:
                return 0.0 if (x0 + x1) / 2 > door.position else math.pi
            return math.pi / 2 if (y0 + y1) / 2 > door.position else -math.pi / 2
    return heading


def beside(house: HouseSpec, room: int, points: np.ndarray) -> tuple[Passed, ...]:
    """Things that are passed in the middle of a way through a room, and can be told from others there."""
    found = []
    if len(points) < 20:
        return ()
    for place, item in enumerate(house.objects):
        if item.room != room or item.on >= 0 or item.category not in BIG or told_apart(house, place) is None:
            continue
        x0, y0, x1, y1 = item.footprint
        nearest = np.stack([np.clip(points[:, 0], x0, x1), np.clip(points[:, 1], y0, y1)], 1)
        away = np.linalg.norm(points - nearest, axis=1)
        at = int(away.argmin())
        if away[at] > BESIDE or not 0.15 < at / len(points) < 0.85:
            continue
        ahead = points[min(at + 5, len(points) - 1)] - points[max(at - 5, 0)]
        to = nearest[at] - points[at]
        angle = wrap(math.atan2(to[1], to[0]) - math.atan2(ahead[1], ahead[0]))
        if math.radians(45) < abs(angle) < math.radians(135):
            found.append(Passed(place, "left" if angle > 0 else "right"))
    return tuple(sorted(found, key=lambda passed: BIG.index(house.objects[passed.place].category)))
