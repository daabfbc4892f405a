"""What people call things in a house, and how one thing is told from the others."""

from __future__ import annotations

from collections import Counter

from envs.house.spec import HouseSpec

WORDS = {
    "tv_monitor": "television",
    "chest_of_drawers": "chest of drawers",
    "gym_equipment": "exercise bike",
    "seating": "bench",
    "clothes": "clothes rack",
    "shelving": "bookcase",
    "appliances": "kitchen appliance",
    "lighting": "lamp",
    "objects": "box",
}
BIG = (
    "bed", "sofa", "table", "cabinet", "counter", "bathtub", "shower", "fireplace", "shelving", "appliances", "plant",
    "chair", "chest_of_drawers", "toilet", "clothes", "gym_equipment", "seating", "stool", "lighting", "sink",
)  # fmt: skip
"""What one notices when walking through a room, the most striking first."""


def called(category: str) -> str:
    """What a category is called."""
    return WORDS.get(category, category)


def article(words: str) -> str:
    """`a` or `an` before some words."""
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"


def told_apart(house: HouseSpec, place: int, room: bool = True) -> str | None:
    """How an object is named so that nothing else in its room (or in the house) is: `sofa`, `red sofa`, or None."""
    one = house.objects[place]
    others = [item for item in house.objects if not room or item.room == one.room]
    if sum(item.category == one.category for item in others) == 1:
        return called(one.category)
    if sum((item.category, item.colour) == (one.category, one.colour) for item in others) == 1:
        return f"{one.colour} {called(one.category)}"
    return None


def room_called(house: HouseSpec, room: int) -> str:
    """`the kitchen`, or `a bedroom` where there are several."""
    kinds = Counter(item.kind for item in house.rooms)
    kind = house.rooms[room].kind
    return f"the {kind}" if kinds[kind] == 1 else article(kind)
