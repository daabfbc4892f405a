"""Pointing at things from where one stands: directions by name, what lies in one, and an object's box as it is seen.

A direction is two actions, `heading <degrees>`, counter-clockwise from where the agent faces, and `elevation
<degrees>`, upwards from level. So an agent whose head chooses among names can point anywhere, also where its camera
does not look.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.house.houses import House
from envs.house.simulator import wrap
from envs.house.spec import HouseObject
from envs.house.viewpoints import to_matterport
from envs.house.views import CAMERA_HEIGHT, sees

STEP = 10
HEADINGS = tuple(f"heading {degrees}" for degrees in range(0, 360, STEP))
ELEVATIONS = tuple(f"elevation {degrees}" for degrees in range(-80, 81, STEP))
REACH = 3.0
"""Metres from an object's footprint within which REVERIE annotates it."""

Direction = tuple[float, float]
"""Heading and elevation in the world, radians."""


def degrees_of(name: str) -> int:
    """The number in an action's name."""
    return int(name.rpartition(" ")[2])


def direction_to(point: Sequence[float], at: np.ndarray) -> Direction:
    """From the eyes of an agent that stands at (2,) to a point x, y, z."""
    x, y = float(point[0] - at[0]), float(point[1] - at[1])
    return math.atan2(y, x), math.atan2(point[2] - CAMERA_HEIGHT, math.hypot(x, y))


def between(one: Direction, other: Direction) -> float:
    """The angle between two directions, radians."""
    (a, up), (b, high) = one, other
    cosine = math.sin(up) * math.sin(high) + math.cos(up) * math.cos(high) * math.cos(a - b)
    return math.acos(max(-1.0, min(1.0, cosine)))


def nearest_names(direction: Direction, facing: float) -> list[tuple[str, str]]:
    """The nine pairs of names around a direction, for an agent that faces a heading; the nearest first."""
    turn, up = round(math.degrees(direction[0] - facing) / STEP), round(math.degrees(direction[1]) / STEP)
    found = []
    for a, b in itertools.product((turn - 1, turn, turn + 1), (up - 1, up, up + 1)):
        heading, elevation = HEADINGS[a % len(HEADINGS)], f"elevation {b * STEP}"
        if elevation in ELEVATIONS:
            told = facing + math.radians(degrees_of(heading)), math.radians(degrees_of(elevation))
            found.append((between(told, direction), heading, elevation))
    return [(heading, elevation) for _, heading, elevation in sorted(found)]


def seen_from(house: House, place: int, points: np.ndarray, reach: float = REACH) -> np.ndarray:
    """Whether an object is within `reach` of each of (P, 2) points and seen from it, in whatever direction it is."""
    item = house.spec.objects[place]
    x0, y0, x1, y1 = item.footprint
    dx = np.maximum(0.0, np.maximum(x0 - points[:, 0], points[:, 0] - x1))
    dy = np.maximum(0.0, np.maximum(y0 - points[:, 1], points[:, 1] - y1))
    found = np.hypot(dx, dy) <= reach
    found[found] = sees(house.scene, points[found], item.centre, house.instance_of[place])
    return found


def candidates(house: House, at: np.ndarray, reach: float = REACH) -> list[int]:
    """The objects that can be meant where one stands: places in `HouseSpec.objects`."""
    return [place for place in sorted(house.instance_of) if seen_from(house, place, at[None], reach)[0]]


def pointed_at(house: House, at: np.ndarray, direction: Direction, among: Sequence[int]) -> int | None:
    """The candidate whose middle is nearest to a direction; None where there is none."""
    off = {place: between(direction_to(house.spec.objects[place].centre, at), direction) for place in among}
    return min(off, key=lambda place: off[place]) if off else None


def box_of(item: HouseObject, at: np.ndarray) -> dict[str, Any]:
    """An object's box as seen from (2,), in SOON's format: `target` with four corners' heading and elevation, radians.

    Headings are clockwise from +y; to the left of its middle they may be below 0, to the right above 2 pi.
    """
    x0, y0, x1, y1 = item.footprint
    low, high = min(part.bounds[2] for part in item.parts), max(part.bounds[5] for part in item.parts)
    middle = direction_to(item.centre, at)[0]
    near = min(max(at[0], x0), x1), min(max(at[1], y0), y1)  # its foot and top are the steepest to look at
    plan = [*itertools.product((x0, x1), (y0, y1)), near]
    corners = [direction_to((*point, height), at) for point in plan for height in (low, high)]
    aside = [wrap(heading - middle) for heading, _ in corners]
    left, right = to_matterport(middle) - max(aside), to_matterport(middle) - min(aside)
    bottom, top = min(up for _, up in corners), max(up for _, up in corners)
    sides = {"left_top": (left, top), "right_top": (right, top), "right_bottom": (right, bottom),
             "left_bottom": (left, bottom)}  # fmt: skip
    return {"target": {name: {"heading": a, "elevation": up} for name, (a, up) in sides.items()}}
