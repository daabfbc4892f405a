"""Referring expressions: phrases that fit one thing only, and its box.

A phrase names attributes (`the small red cube`), a place among things of a kind (`the leftmost cube`) or a neighbour
(`the cube to the left of the blue ring`). It fits nothing else in the scene, hidden things included. The box is that of
the pixels which show the thing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from envs.scenes.grammar import Filter, described, descriptions, fits, full, noun
from envs.scenes.visibility import DEPTH_MARGIN, SIDE_MARGIN, Fact, in_front_of, left_of

GRID = 999
"""Boxes in text are whole numbers from 0, the left or upper edge of the picture, to this, its right or lower edge."""
ASKED = ("Where is {x}?", "Find {x}.", "Give the box of {x}.", "Locate {x}.")
EACH = 3
Box = tuple[int, int, int, int]


def references(random: np.random.Generator, fact: Fact, facts: Sequence[Fact], count: int = EACH) -> list[str]:
    """Up to `count` different phrases, each of which fits this thing alone; none where the thing is not seen."""
    if not fact.seen:
        return []
    found = [f"the {noun(filter)}" for filter in descriptions(fact, facts)]
    found += _places(fact, facts)
    found += _neighbours(random, fact, facts)
    found = list(dict.fromkeys(found))
    return [found[i] for i in random.permutation(len(found))[:count]]


def in_text(box: Box, size: int) -> str:
    """A box of pixels as text: `[120,40,480,999]`, x1, y1, x2, y2 from 0 to 999."""
    return f"[{','.join(str(round(GRID * edge / size)) for edge in box)}]"


def boxed(fact: Fact, size: int) -> str:
    """A thing with its box: `small red cube [120,40,480,999]`."""
    return f"{full(fact)} {in_text(fact.box, size)}"


def _places(fact: Fact, facts: Sequence[Fact]) -> Iterator[str]:
    """Extreme among the things of its shape, or of all."""
    orders: tuple[tuple[str, Callable[[Fact], float], float], ...] = (
        ("the leftmost {x}", lambda f: f.column, SIDE_MARGIN),
        ("the rightmost {x}", lambda f: -f.column, SIDE_MARGIN),
        ("the {x} closest to the camera", lambda f: f.depth, DEPTH_MARGIN),
        ("the {x} farthest from the camera", lambda f: -f.depth, DEPTH_MARGIN),
    )
    filters: tuple[Filter, ...] = ({"shape": fact.shape}, {"colour": fact.colour}, {})
    for filter in filters:
        others = [other for other in facts if other is not fact and fits(other, filter)]
        if not others:
            continue
        for words, order, margin in orders:
            if all(order(other) - order(fact) >= margin for other in others):
                yield words.format(x=noun(filter))


def _neighbours(random: np.random.Generator, fact: Fact, facts: Sequence[Fact]) -> Iterator[str]:
    """By its relation to another thing, where its shape alone would not tell it."""
    filter = {"shape": fact.shape}
    rivals = [other for other in facts if other is not fact and fits(other, filter)]
    for anchor in facts:
        if not rivals or anchor is fact or anchor in rivals or not anchor.seen:
            continue
        name = described(random, anchor, facts)
        if name is None:
            continue
        for words, holds in (("left", left_of), ("front", in_front_of)):
            mine = holds(fact, anchor)
            if mine is None or any(holds(other, anchor) in (mine, None) for other in rivals):
                continue
            where = {"left": ("to the right of", "to the left of"), "front": ("behind", "in front of")}[words][mine]
            yield f"the {noun(filter)} {where} the {noun(name)}"
