"""Questions about films: what moves, where to, in which order, what enters and what leaves.

They are asked only of films in which everything is seen at the beginning and at the end, but for what enters and
leaves, which is wholly out of the picture then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from envs.scenes.film import DIRECTIONS
from envs.scenes.grammar import described, noun
from envs.scenes.questions import OPEN, Question
from envs.scenes.visibility import Fact

KINDS = ("moves", "which", "direction", "how_many", "order", "enters", "leaves")


def clear(begin: Sequence[Fact], end: Sequence[Fact], motions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a film shows all that its questions are about."""
    kinds = {motion["thing"]: motion["kind"] for motion in motions}
    for i, (first, last) in enumerate(zip(begin, end, strict=True)):
        kind = kinds.get(i, "stay")
        if not (first.pixels == 0 if kind == "enter" else first.seen):
            return False
        if not (last.pixels == 0 if kind == "leave" else last.seen):
            return False
    return True


def film_questions(
    random: np.random.Generator, begin: Sequence[Fact], end: Sequence[Fact], motions: Sequence[Mapping[str, Any]]
) -> list[Question]:
    """All that may be asked of a film; `motions` in the order in which they happen, as a painter records them."""
    if not clear(begin, end, motions):
        return []
    found = list(_all(random, begin, motions))
    return [found[i] for i in random.permutation(len(found))]


def _all(
    random: np.random.Generator, facts: Sequence[Fact], motions: Sequence[Mapping[str, Any]]
) -> Iterator[Question]:
    names = {}
    for i, fact in enumerate(facts):
        filter = described(random, fact, facts)
        if filter is not None:
            names[i] = noun(filter)
    moving = [motion["thing"] for motion in motions]
    numbers = ("0", "1", "2")
    yield Question("how_many", "how_many", "How many things move?", str(len(moving)), numbers)
    for kind in ("enter", "leave"):
        happens = any(motion["kind"] == kind for motion in motions)
        yield Question(f"{kind}s", f"{kind}s", f"Does anything {kind} the picture?", "yes" if happens else "no")
    for i, name in names.items():
        yield Question("moves", "moves", f"Does the {name} move?", "yes" if i in moving else "no")
    if len(moving) == 1 and moving[0] in names:
        fact = facts[moving[0]]
        answer = f"the {names[moving[0]]}"
        yield Question("which", "which", "Which thing moves?", answer, OPEN)
        yield Question("which", "which colour", "What colour is the thing that moves?", fact.colour, OPEN)
        yield Question("which", "which shape", "What shape is the thing that moves?", fact.shape, OPEN)
    for motion in motions:
        if motion["thing"] in names:
            text = f"In which direction does the {names[motion['thing']]} move?"
            yield Question("direction", f"direction {motion['kind']}", text, motion["direction"], _directions(motion))
    if len(moving) == 2 and all(i in names for i in moving):
        first, second = (names[i] for i in (moving if random.random() < 0.5 else moving[::-1]))
        answer = f"the {names[moving[0]]}"
        place = "first" if answer == f"the {first}" else "second"
        text = f"Which moves first, the {first} or the {second}?"
        yield Question("order", f"order {place}", text, answer, OPEN)


def _directions(motion: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(DIRECTIONS) if motion["kind"] == "move" else tuple(DIRECTIONS)[:2]
