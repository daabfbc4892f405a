"""Instructions for ways through a house, from what happens on them: true by construction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from envs.house.naming import room_called, told_apart
from envs.house.routes import Leg
from envs.house.spec import HouseSpec

FILE = Path(__file__).with_name("phrasings.yaml")
MENTION = 0.7
"""How often a thing beside the way is mentioned."""


@cache
def phrasings(held_out: bool) -> dict[str, Any]:
    """The templates that training uses, or those that it never does."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))["held_out" if held_out else "train"]


def instruct(
    house: HouseSpec, legs: Sequence[Leg], target: int, rng: np.random.Generator, held_out: bool = False
) -> str:
    """Sentences that lead along a way to an object.

    Args:
        house: where.
        legs: the way, room by room.
        target: the object to stop at; it can be told from others in its room.
        rng: chooses the words.
        held_out: in words that training never uses.
    """
    words = phrasings(held_out)

    def say(options: Sequence[str], **parts: str) -> str:
        return options[int(rng.integers(len(options)))].format(**parts)

    clauses = []
    for place, leg in enumerate(legs):
        mentioned, towards = [passed for passed in leg.passed if passed.place != target], leg.towards
        if mentioned and rng.random() < MENTION:
            if towards != "ahead":  # left and right of things are those of the way, so the turn comes first
                clauses.append(say(words["turn"][towards]))
                towards = "ahead"
            thing = told_apart(house, mentioned[0].place)
            assert thing is not None
            clauses.append(say(words["pass"], thing=thing, side=mentioned[0].side))
        if place + 1 < len(legs):
            kind, onward = house.rooms[leg.room].kind, legs[place + 1].room
            room = f"another {kind}" if house.rooms[onward].kind == kind else room_called(house, onward)
            clauses.append(say(words["leave"][towards], here=f"the {kind}", room=room))
    thing = told_apart(house, target)
    assert thing is not None
    clauses.append(say(words["arrive"][towards], thing=thing))
    return joined(clauses, rng)


def joined(clauses: Sequence[str], rng: np.random.Generator) -> str:
    """Clauses as sentences, some of two clauses."""
    sentences: list[str] = []
    for clause in clauses:
        if sentences and " then " not in sentences[-1] and "," not in sentences[-1] and rng.random() < 0.3:
            sentences[-1] += f", then {clause}"
        else:
            sentences.append(clause)
    return " ".join(sentence[0].upper() + sentence[1:] + "." for sentence in sentences)
