"""Remote objects: go to where a described object is, after REVERIE and SOON."""

from __future__ import annotations

import numpy as np

from envs.house.houses import House
from envs.house.naming import article, called
from envs.house.spec import HouseSpec, Rectangle
from envs.house.tasks.base import Episode, HouseTask, start_in
from envs.house.views import sees

LEAST = 4.0
"""Metres of the shortest way at least."""
BESIDE = 0.6
"""Metres between things of which one is said to be next to the other."""
HUNG = ("picture", "mirror", "towel", "window")
SEEN = 3.0
"""REVERIE annotates objects within so many metres of a viewpoint."""


class RemoteObject(HouseTask):
    """An object that the description alone singles out in the house, in another room than the agent.

    Distances are to view points at most 1 m from it.
    """

    words: dict[bool, tuple[str, ...]]

    def draw(self, house: House, rng: np.random.Generator) -> Episode | None:
        spec = house.spec
        start = start_in(self.sim, rng)
        here = house.room_at(start.position)
        places = [k for k, item in enumerate(spec.objects) if item.room != here and singled_out(spec, k)]
        if not places:
            return None
        target = places[int(rng.integers(len(places)))]
        room = spec.objects[target].room
        goals = house.views(target, self.sim.finder)
        goals = goals[[house.room_at(goal) == room for goal in goals]]
        if not len(goals) or self.sim.finder.geodesic(start.position[None], goals) < LEAST:
            return None
        options = self.words[self.reworded]
        text = options[int(rng.integers(len(options)))].format(**facts(spec, target))
        self.target = target
        item = spec.objects[target]
        reference = {
            "target": target,
            "object_category": item.category,
            "room": spec.rooms[room].kind,
            "goals": [{"object_id": target, "position": list(item.centre)}],
        }
        return Episode(start, goals, text, reference)


class Reverie(RemoteObject):
    """Success is to stop where the object is seen, in whatever direction, from at most 3 m (REVERIE's rule)."""

    name, near = "reverie", SEEN
    words: dict[bool, tuple[str, ...]] = {  # noqa: RUF012
        False: (
            "go to the {room} and find the {colour} {thing}",
            "walk to the {room} with the {colour} {thing} and look at it",
            "enter the {room} and stop where you can see the {colour} {thing}",
            "bring me to the {colour} {thing} in the {room}",
        ),
        True: (
            "in the {room} there is {a_thing}, which is {colour}: clean it",
            "somebody wants the {thing} that is {colour}, it should be in the {room}",
        ),
    }

    def decide(self, action: str) -> tuple[bool, bool]:
        item, at = self.sim.house.spec.objects[self.target], self.sim.state.position
        instance = self.sim.house.instance_of[self.target]
        near = gap(item.footprint, (at[0], at[1], at[0], at[1])) <= self.success_distance
        return True, near and bool(sees(self.sim.house.scene, at[None], item.centre, instance)[0])


class Soon(RemoteObject):
    """Success is to stop where the way to a point that sees the object from near by is shorter than 3 m (SOON's rule).

    The instruction says what it is, what it is near to, in which room, and what room that one is beside.
    """

    name, near = "soon", 3.0
    words: dict[bool, tuple[str, ...]] = {  # noqa: RUF012
        False: (
            "find {a_colour} {thing} {relation}, in the {room}, which is beside the {beside}",
            "i am looking for {a_colour} {thing}, it is {relation}, the {room} it is in is next to the {beside}",
        ),
        True: (
            "the {room} that adjoins the {beside} holds {a_thing}, {colour} and {relation}: locate it",
            "locate the {thing}, {colour}, {relation}, in the {room} that adjoins the {beside}",
        ),
    }


def singled_out(spec: HouseSpec, place: int) -> bool:
    """Whether category, colour and kind of room name one object of the house."""
    one = spec.objects[place]
    if one.category in ("window", "objects"):
        return False
    kind = spec.rooms[one.room].kind
    alike = [
        item
        for item in spec.objects
        if (item.category, item.colour, spec.rooms[item.room].kind) == (one.category, one.colour, kind)
    ]
    return len(alike) == 1


def facts(spec: HouseSpec, place: int) -> dict[str, str]:
    """What is true of an object: `thing`, `a_thing`, `colour`, `a_colour`, `room`, `relation`, `beside`."""
    one = spec.objects[place]
    thing = called(one.category)
    others = [spec.rooms[other].kind for door in spec.doors if one.room in door.rooms for other in door.rooms]
    kind = spec.rooms[one.room].kind
    beside = [other for other in others if other != kind]
    return {
        "thing": thing,
        "a_thing": article(thing),
        "colour": one.colour,
        "a_colour": article(one.colour),
        "room": kind,
        "relation": relation(spec, place),
        "beside": beside[0] if beside else kind,
    }


def relation(spec: HouseSpec, place: int) -> str:
    """Where an object is: on another, on the wall, next to the nearest other, or by itself."""
    one = spec.objects[place]
    if one.on >= 0:
        below = spec.objects[one.on]
        return f"above the {called(below.category)}" if one.category == "mirror" else f"on the {called(below.category)}"
    if one.category in HUNG:
        return "on the wall"
    near = [
        (gap(one.footprint, item.footprint), item)
        for other, item in enumerate(spec.objects)
        if other != place and item.room == one.room and item.on < 0 and item.category not in HUNG
    ]
    away, item = min(near, key=lambda pair: pair[0], default=(BESIDE, one))
    return f"next to the {item.colour} {called(item.category)}" if away < BESIDE else "standing by itself"


def gap(a: Rectangle, b: Rectangle) -> float:
    """Metres between two rectangles of the plan."""
    dx = max(0.0, a[0] - b[2], b[0] - a[2])
    dy = max(0.0, a[1] - b[3], b[1] - a[3])
    return float(np.hypot(dx, dy))
