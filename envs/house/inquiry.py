"""Questions about a house whose answers follow from what it is made of.

Kinds of EQA (Das et al. 2018): `location`, `color`, `color_room`, `preposition`. Kinds of IQUAD (Gordon et al. 2018):
`existence`, `counting`, `containment`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.house.categories import OBJECTNAV
from envs.house.furniture import COLOURS, ROOMS
from envs.house.naming import article, called
from envs.house.spec import HouseSpec

EQA = ("location", "color", "color_room", "preposition")
IQUAD = ("existence", "counting", "containment")
DYED = (
    "bed", "sofa", "chair", "stool", "cabinet", "chest_of_drawers", "towel", "bathtub", "clothes", "table", "cushion",
    "plant",
)  # fmt: skip
"""Categories whose colour is plain to see."""
CARRIED = ("television", "sink", "mirror", "box", "cushion")
MOST = 3
"""The highest count that is asked for."""
ANSWERS = {
    "eqa": (*COLOURS, *ROOMS, *CARRIED),
    "iquad": ("yes", "no", *(str(count) for count in range(MOST + 1))),
}
"""What can be answered: every question's answer is one of these."""
WORDS: dict[bool, dict[str, tuple[str, ...]]] = {
    False: {
        "location": ("what room is the {thing} located in?", "in which room is the {thing}?"),
        "color": ("what color is the {thing}?", "what is the color of the {thing}?"),
        "color_room": ("what color is the {thing} in the {room}?", "in the {room}, what color is the {thing}?"),
        "preposition": ("what is on the {thing} in the {room}?",),
        "existence": ("is there {a_thing} in the house?", "does this house have {a_thing}?"),
        "counting": ("how many {things} are there in the house?", "count the {things} in this house"),
        "containment": ("is there {a_thing} in the {room}?", "does the {room} contain {a_thing}?"),
    },
    True: {
        "location": ("where would one find the {thing}, name the room",),
        "color": ("name the color that the {thing} has",),
        "color_room": ("name the color of the {thing} that stands in the {room}",),
        "preposition": ("name the thing that lies or stands on the {thing} of the {room}",),
        "existence": ("could someone find {a_thing} anywhere here?",),
        "counting": ("tell the number of {things} that this home has",),
        "containment": ("would one find {a_thing} inside the {room}?",),
    },
}


@dataclass(frozen=True)
class Question:
    """A question about a house.

    Attributes:
        kind: of `EQA` or `IQUAD`.
        text, answer: in words; the answer is one of `ANSWERS`.
        target: the object it is about, a place in `HouseSpec.objects`; None where it is about many or none.
        rooms: where one has to have looked to know: places in `HouseSpec.rooms`.
    """

    kind: str
    text: str
    answer: str
    target: int | None
    rooms: tuple[int, ...]


def ask(house: HouseSpec, kind: str, rng: np.random.Generator, held_out: bool = False) -> Question | None:
    """A question of a kind; None where the draw gave none that has one answer.

    Answers of yes and no are equally likely, and so are the counts that the house has things for.
    """
    if kind in EQA:
        return _about_one(house, kind, rng, held_out)
    kinds = Counter(room.kind for room in house.rooms)
    everywhere = tuple(range(len(house.rooms)))
    counts = Counter(item.category for item in house.objects)
    if kind == "counting":
        options = {n: [c for c in OBJECTNAV if counts[c] == n] for n in range(MOST + 1)}
        number = _choose([n for n, categories in options.items() if categories], rng)
        category = _choose(options[number], rng)
        return Question(kind, _say(kind, category, "", rng, held_out), str(number), None, everywhere)
    room, within = None, ""
    if kind == "containment":
        room = _choose([k for k, item in enumerate(house.rooms) if kinds[item.kind] == 1], rng)
        within = house.rooms[room].kind
        counts = Counter(item.category for item in house.objects if item.room == room)
    there = [c for c in OBJECTNAV if counts[c]]
    elsewhere = [c for c in OBJECTNAV if not counts[c]]
    answer = bool(rng.integers(2))
    if not (there if answer else elsewhere):
        return None
    category = _choose(there if answer else elsewhere, rng)
    rooms = everywhere if room is None else (room,)
    return Question(kind, _say(kind, category, within, rng, held_out), "yes" if answer else "no", None, rooms)


def _about_one(house: HouseSpec, kind: str, rng: np.random.Generator, held_out: bool) -> Question | None:
    target = int(rng.integers(len(house.objects)))
    item = house.objects[target]
    room = house.rooms[item.room].kind
    same = [k for k, other in enumerate(house.objects) if other.category == item.category]
    same_kind = [k for k in same if house.rooms[house.objects[k].room].kind == room]
    if kind == "preposition":
        below = item.on
        if below < 0 or called(item.category) not in CARRIED or item.category == "mirror":
            return None
        under = house.objects[below].category
        rivals = [
            k
            for k, other in enumerate(house.objects)
            if other.category == under and house.rooms[other.room].kind == room
        ]
        carried = {other.category for other in house.objects if other.on == below}
        if len(rivals) > 1 or carried != {item.category}:
            return None
        return Question(kind, _say(kind, under, room, rng, held_out), called(item.category), target, (item.room,))
    if item.category in ("window", "objects", "appliances"):
        return None
    if len(same_kind if kind == "color_room" else same) > 1 or (kind != "location" and item.category not in DYED):
        return None
    answer = room if kind == "location" else item.colour
    return Question(kind, _say(kind, item.category, room, rng, held_out), answer, target, (item.room,))


def _say(kind: str, category: str, room: str, rng: np.random.Generator, held_out: bool) -> str:
    thing = called(category)
    many = {"chest of drawers": "chests of drawers", "bench": "benches", "clothes": "clothes"}.get(thing, f"{thing}s")
    words = _choose(WORDS[held_out][kind], rng)
    return words.format(thing=thing, a_thing=article(thing), things=many, room=room)


def _choose(options: Sequence[Any], rng: np.random.Generator) -> Any:
    return options[int(rng.integers(len(options)))]
