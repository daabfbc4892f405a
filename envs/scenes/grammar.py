"""How things are spoken of: filters (`small red cubes`), descriptions that fit one thing only, captions.

A filter says some attributes of things: `{"size": "small", "shape": "cube"}`. Whatever is derived from filters holds
for the whole scene, hidden things included: a description fits one thing only, and a number is known only where no
hidden thing fits the filter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations, pairwise

import numpy as np

from envs.scenes.visibility import Fact, from_left, in_front_of, left_of
from envs.scenes.vocabulary import ATTRIBUTES, NUMBERS, SHAPES, article, plural

Filter = Mapping[str, str]
ORDER_MARGIN = 0.03
"""Neighbours in `from left to right` are at least so far apart, as a part of the picture's width."""
THING = "thing"


def fits(fact: Fact, filter: Filter) -> bool:
    """Whether a thing has all that a filter says."""
    return all(fact.word(attribute) == word for attribute, word in filter.items())


def number_of(facts: Sequence[Fact], filter: Filter) -> int | None:
    """How many things fit; None where a hidden one does, so that the picture doesn't tell."""
    found = [fact for fact in facts if fits(fact, filter)]
    return len(found) if all(fact.seen for fact in found) else None


def noun(filter: Filter, many: bool = False) -> str:
    """`small red cube`, `striped things`."""
    shape = filter.get("shape", THING)
    return " ".join([*(filter[a] for a in ATTRIBUTES[:-1] if a in filter), plural(shape) if many else shape])


def full(fact: Fact) -> str:
    """All that is worth saying of a thing: `small striped red cube`; plain is not."""
    return noun({a: fact.word(a) for a in ATTRIBUTES if fact.word(a) != "plain"})


def descriptions(fact: Fact, facts: Sequence[Fact], without: Collection[str] = ()) -> list[dict[str, str]]:
    """The filters that fit this thing alone, of `facts`, and say nothing needless; none of the attributes `without`."""
    mine, looks = fact.words(), [other.words() for other in facts]
    usable = [i for i, attribute in enumerate(ATTRIBUTES) if attribute not in without]
    found: list[tuple[int, ...]] = []
    for count in range(1, len(usable) + 1):
        for chosen in combinations(usable, count):
            if any(set(shorter) <= set(chosen) for shorter in found):
                continue
            if sum(all(look[i] == mine[i] for i in chosen) for look in looks) == 1:
                found.append(chosen)
    return [{ATTRIBUTES[i]: mine[i] for i in chosen} for chosen in found]


def described(
    random: np.random.Generator, fact: Fact, facts: Sequence[Fact], without: Collection[str] = ()
) -> dict[str, str] | None:
    """One of `descriptions`; None where there is none."""
    found = descriptions(fact, facts, without)
    return found[random.integers(len(found))] if found else None


def listed(phrases: Sequence[str]) -> str:
    """`a, b and c`."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def captions(random: np.random.Generator, facts: Sequence[Fact], count: int = 5) -> list[str]:
    """Up to `count` different captions, each true, in random order; none where nothing is seen.

    They say how many things there are only where none is hidden, and tell an order only where it is clear.
    """
    seen = from_left(facts)
    if not seen:
        return []
    names = [article(full(fact)) for fact in seen]
    found = [f"A table with {listed(names)}.", f"{_capital(listed(names))} on a table."]
    if len(seen) > 1 and all(b.column - a.column >= ORDER_MARGIN for a, b in pairwise(seen)):
        found.append(f"From left to right: {listed(names)}.")
    if len(seen) == len(facts):
        are = "is" if len(seen) == 1 else "are"
        things = f"{NUMBERS[len(seen)]} {THING if len(seen) == 1 else plural(THING)}"
        found.append(f"There {are} {things} on the table: {listed(names)}.")
        found.append(f"A table with {listed(_tally(seen))}.")
    found += _related(random, seen)
    found = list(dict.fromkeys(found))
    return [found[i] for i in random.permutation(len(found))[:count]]


def _related(random: np.random.Generator, seen: Sequence[Fact]) -> list[str]:
    for i, j in random.permutation(list(combinations(range(len(seen)), 2))).tolist() if len(seen) > 1 else []:
        a, b = seen[i], seen[j]
        if a.words() == b.words():
            continue
        left, front = left_of(a, b), in_front_of(a, b)
        where = {True: "to the left of", False: "to the right of"}.get(left) if left is not None else None
        if where is None and front is not None:
            where = "in front of" if front else "behind"
        if where is not None:
            return [f"{_capital(article(full(a)))} {where} {article(full(b))}."]
    return []


def _tally(seen: Sequence[Fact]) -> list[str]:
    counts = Counter(fact.shape for fact in seen)
    return [
        article(shape) if counts[shape] == 1 else f"{NUMBERS[counts[shape]]} {plural(shape)}"
        for shape in SHAPES
        if counts[shape]
    ]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
