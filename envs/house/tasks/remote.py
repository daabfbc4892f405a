"""Remote objects: go to where a described object is, and point at it, after REVERIE and SOON."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.house import pointing
from envs.house.houses import House
from envs.house.naming import article, called
from envs.house.simulator import Body
from envs.house.spec import HouseSpec, Rectangle
from envs.house.tasks.base import Episode, HouseTask, start_in
from envs.house.viewpoints import to_matterport
from envs.house.views import sees

LEAST = 4.0
"""Metres of the shortest way at least."""
BESIDE = 0.6
"""Metres between things of which one is said to be next to the other."""
HUNG = ("picture", "mirror", "towel", "window")
AROUND = 12
"""Directions in which the oracle may end up beside a view point."""


class RemoteObject(HouseTask):
    """An object that the description alone singles out in the house, in another room than the agent.

    Distances are to view points at most 1 m from it, around which it is seen, too.

    With `grounding` there are also actions that point (`envs.house.pointing`): `heading <degrees>` and `elevation
    <degrees>`, which move nothing. Both together are what the agent points at when it says `stop`; a later one replaces
    an earlier one, and a movement takes both back. The state ends with whether either was told. `prediction` then says
    what was pointed at, and `measures` whether that was right. Without it the actions are those of every other task
    that ends with `stop`, so that one agent can do them all.

    Args:
        body, split, houses, max_steps, success_distance, wander, perturb: see `HouseTask`.
        grounding: whether the object can be pointed at.
    """

    words: dict[bool, tuple[str, ...]]

    def __init__(
        self,
        body: Body | None = None,
        split: str = "train",
        houses: int | None = None,
        max_steps: int = 500,
        success_distance: float | None = None,
        wander: float = 0.0,
        perturb: Mapping[str, float] | None = None,
        grounding: bool = False,
    ) -> None:
        self.grounding, self.told = grounding, dict[str, int]()
        if grounding:  # the class's own are those without
            self.own = ("stop", *pointing.HEADINGS, *pointing.ELEVATIONS)  # type: ignore[misc]
            self.senses = ("heading_told", "elevation_told")  # type: ignore[misc]
            self.units = ("1", "1")  # type: ignore[misc]
        super().__init__(body, split, houses, max_steps, success_distance, wander, perturb)

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
        goals = self.firm(house, target, goals[[house.room_at(goal) == room for goal in goals]])
        if not len(goals) or self.sim.finder.geodesic(start.position[None], goals) < LEAST:
            return None
        options = self.words[self.reworded]
        text = options[int(rng.integers(len(options)))].format(**facts(spec, target))
        self.target = target
        item = spec.objects[target]
        reference = {
            "target": target,
            "objId": str(target),
            "object_category": item.category,
            "room": spec.rooms[room].kind,
            "goals": [{"object_id": target, "position": list(item.centre)}],
        }
        return Episode(start, goals, text, reference)

    def firm(self, house: House, target: int, goals: np.ndarray) -> np.ndarray:
        """Those of (G, 2) view points beside which the object is seen, too: the oracle stops near to them, not on them.

        Without this, the corner of a cupboard may stand between the object and where the oracle stopped, though it is
        seen from a hand's breadth further on.
        """
        if not len(goals):
            return goals
        angles = 2 * math.pi * np.arange(AROUND) / AROUND
        ring = min(0.75 * self.body.forward, self.success_distance) * np.stack([np.cos(angles), np.sin(angles)], 1)
        ring = np.concatenate([ring / 2, ring])
        beside = (goals[:, None] + ring).reshape(-1, 2)
        hidden = self.sim.finder.is_navigable(beside)
        item, instance = house.spec.objects[target], house.instance_of[target]
        hidden[hidden] = ~sees(house.scene, beside[hidden], item.centre, instance)
        return goals[~hidden.reshape(len(goals), -1).any(1)]

    # pointing

    def begin(self, episode: Episode) -> None:
        self.told = {}
        super().begin(episode)

    def notice(self) -> None:
        if self.walk.actions and self.walk.actions[-1] in self.body.moves:
            self.told = {}

    def sense(self) -> np.ndarray:
        return np.array([part in self.told for part in ("heading", "elevation")] if self.grounding else [])

    def decide(self, action: str) -> tuple[bool, bool]:
        if action == "stop":
            return True, self.solved()
        self.told[action.split()[0]] = pointing.degrees_of(action)
        return False, False

    def solved(self) -> bool:
        """Whether this is a place to stop at."""
        return super().decide("stop")[1]

    @property
    def direction(self) -> pointing.Direction | None:
        """Where the agent points, in the world; None where it has not said so."""
        if len(self.told) < 2:
            return None
        return self.sim.state.heading + math.radians(self.told["heading"]), math.radians(self.told["elevation"])

    def arrived(self) -> str:
        """The oracle points at the object's middle and stops."""
        if not self.grounding:
            return "stop"
        item, at = self.sim.house.spec.objects[self.target], self.sim.state.position
        names = pointing.nearest_names(pointing.direction_to(item.centre, at), self.sim.state.heading)
        for name in self.best(names):
            part = name.split()[0]
            if self.told.get(part) != pointing.degrees_of(name):
                return name
        return "stop"

    def best(self, names: list[tuple[str, str]]) -> tuple[str, str]:
        """The pair of names that tells the object from others."""
        return names[0]

    @abstractmethod
    def grounded(self) -> bool:
        """Whether the agent points at the object."""

    def pointed(self, name: str, weighted: str) -> dict[str, float]:
        """That as a measure, and weighted by the path's length as SPL is; nothing without `grounding`."""
        if not self.grounding:
            return {}
        right = float(self.ended and self.grounded())
        start, taken = self.walk.distances[0], self.walk.length
        return {name: right, weighted: right * start / max(start, taken)}


class Reverie(RemoteObject):
    """Success is to stop where the object is seen, in whatever direction, from at most 3 m (REVERIE's rule).

    The object that is named (RGS) is the one whose middle is nearest to where the agent points, of all that are seen
    from within that distance: REVERIE's candidates. `embodied-score profile=reverie-ce`.
    """

    name, near = "reverie", pointing.REACH
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

    def solved(self) -> bool:
        return bool(self.seen(self.sim.state.position[None])[0])

    def seen(self, points: np.ndarray) -> np.ndarray:
        """Whether the object is seen from each of (P, 2) points, from as near as it has to be."""
        return pointing.seen_from(self.sim.house, self.target, points, self.success_distance)

    def best(self, names: list[tuple[str, str]]) -> tuple[str, str]:
        among = self.candidates()
        return next((pair for pair in names if self.meant(pair, among) == self.target), names[0])

    def meant(self, pair: tuple[str, str], among: list[int]) -> int | None:
        """What a pair of names points at from here."""
        turn, up = (math.radians(pointing.degrees_of(name)) for name in pair)
        state = self.sim.state
        return pointing.pointed_at(self.sim.house, state.position, (state.heading + turn, up), among)

    def candidates(self) -> list[int]:
        """The objects that can be meant from here."""
        return pointing.candidates(self.sim.house, self.sim.state.position, self.success_distance)

    def named(self) -> int | None:
        """The object that the agent points at."""
        if self.direction is None:
            return None
        return pointing.pointed_at(self.sim.house, self.sim.state.position, self.direction, self.candidates())

    def grounded(self) -> bool:
        return self.named() == self.target

    def measures(self) -> dict[str, float]:
        once = self.seen(np.array(self.walk.positions)[:, :2]).any()
        return super().measures() | {"oracle_success": float(once)} | self.pointed("rgs", "rgspl")

    def record(self) -> dict[str, Any]:
        row = super().record() | {"seen": self.seen(np.array(self.walk.positions)[:, :2]).tolist()}
        named = self.named() if self.grounding and self.ended else None
        said = None if not self.grounding else "" if named is None else str(named)
        return row | {"predObjId": said}


class Soon(RemoteObject):
    """Success is to stop where the way to a point that sees the object from near by is shorter than 3 m (SOON's rule).

    The instruction says what it is, what it is near to, in which room, and what room that one is beside. Grounding is
    that the agent points into the object's box as it is seen from where it stopped, and that it is seen from there,
    from within 3 m. `embodied-score profile=soon-ce`.
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

    def box(self) -> dict[str, Any] | None:
        """The object's box from where the agent stands; None where it is not seen from there, or farther than 3 m."""
        house, at = self.sim.house, self.sim.state.position
        if not pointing.seen_from(house, self.target, at[None])[0]:
            return None
        return pointing.box_of(house.spec.objects[self.target], at)

    def grounded(self) -> bool:
        box, direction = self.box(), self.direction
        if box is None or direction is None:
            return False
        left, high = box["target"]["left_top"].values()
        right, low = box["target"]["right_bottom"].values()
        return 0 < (to_matterport(direction[0]) - left) % (2 * math.pi) < right - left and low < direction[1] < high

    def measures(self) -> dict[str, float]:
        return super().measures() | self.pointed("grounding", "grounding_spl")

    def record(self) -> dict[str, Any]:
        row = super().record() | {"obj_heading": None, "obj_elevation": None, "bbox": self.box()}
        if self.grounding and self.ended:
            heading, elevation = self.direction or (math.pi / 2, -math.pi / 2)  # who says nothing points at its feet
            row["obj_heading"] = to_matterport(heading) / (2 * math.pi)
            row["obj_elevation"] = (elevation + math.pi) / (2 * math.pi)
        return row


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
