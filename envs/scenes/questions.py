"""Questions about a picture, each with its one right answer.

`Asker.candidates` makes many of each kind; which of them a data set asks is decided where answers are balanced
(`envs.scenes.balance`). Relations are asked only where the difference is clear (`envs.scenes.visibility`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from envs.scenes.grammar import Filter, described, noun, number_of
from envs.scenes.visibility import Fact, in_front_of, left_of
from envs.scenes.vocabulary import SIZES, Pair, Vocabulary, article

YES_NO = ("yes", "no")
OPEN: tuple[str, ...] = ()
"""Answers that no list holds."""
FORMS: dict[str, tuple[str, ...]] = {
    "exist": ("Is there {a} on the table?", "Is there {a} in the picture?", "Can you see {a}?"),
    "count": ("How many {many} are there?", "How many {many} can you see?", "What is the number of {many}?"),
    "colour": ("What colour is the {x}?", "What is the colour of the {x}?"),
    "shape": ("What shape is the {x}?", "What is the shape of the {x}?"),
    "size": ("What size is the {x}?", "What is the size of the {x}?"),
    "texture": ("What texture does the {x} have?", "What is the texture of the {x}?"),
    "left of": ("Is the {x} to the left of the {y}?", "Is the {x} left of the {y}?"),
    "right of": ("Is the {x} to the right of the {y}?", "Is the {x} right of the {y}?"),
    "in front of": ("Is the {x} in front of the {y}?", "Is the {x} closer to the camera than the {y}?"),
    "behind": ("Is the {x} behind the {y}?", "Is the {x} farther away than the {y}?"),
    "side": (
        "Is the {x} to the left or to the right of the {y}?",
        "On which side of the {y} is the {x}, left or right?",
    ),
    "bigger": ("Is the {x} bigger than the {y}?", "Is the {x} larger than the {y}?"),
    "smaller": ("Is the {x} smaller than the {y}?",),
    "same size": ("Are the {x} and the {y} the same size?", "Is the {x} as big as the {y}?"),
    "more": ("Are there more {x} than {y}?",),
    "fewer": ("Are there fewer {x} than {y}?",),
    "as many": ("Are there as many {x} as {y}?", "Is the number of {x} the same as the number of {y}?"),
}
"""What is asked, in several ways."""
KINDS = ("exist", "count", "colour", "shape", "size", "texture", "relation", "compare_size", "compare_number")
EXIST = (("colour",), ("shape",), ("size", "shape"), ("texture", "shape"), ("colour", "shape"), ("size", "colour"))
COUNT = ((), ("colour",), ("shape",), ("size",), ("texture",))
MOST_COUNTED = 4
"""Larger numbers of a part of the things are too rare for their questions to be balanced."""
MARGINS_TRIED, PER_CLASS = 8, 2


@dataclass(frozen=True)
class Question:
    """A question with its answer.

    Attributes:
        kind: of `KINDS`, or a film's.
        key: which questions it is balanced with: those whose words alone should give no hint of the answer.
        text, answer: what is asked and answered.
        possible: the answers that questions of this key have; `OPEN` where these are not counted.
        about: the filters that it names, in the order in which it names them.
    """

    kind: str
    key: str
    text: str
    answer: str
    possible: tuple[str, ...] = YES_NO
    about: tuple[Filter, ...] = ()

    @property
    def answer_type(self) -> str:
        """As VQAv2 calls it: `yes/no`, `number` or `other`."""
        return "yes/no" if self.possible == YES_NO else "number" if self.answer.isdigit() else "other"


class Asker:
    """Makes the questions about the pictures of a split.

    Args:
        vocabulary: the words.
        pairs: of shape and colour that the split shows: no question names another, or its words would tell that it is
            absent.
        least, most: how many things a scene has.
    """

    def __init__(self, vocabulary: Vocabulary, pairs: Sequence[Pair], least: int, most: int) -> None:
        self.vocabulary, self.pairs = vocabulary, list(pairs)
        self._numbers = tuple(str(n) for n in range(least, most + 1))

    def candidates(self, random: np.random.Generator, facts: Sequence[Fact]) -> list[Question]:
        """Many questions of all kinds about a picture, in random order."""
        if not any(fact.seen for fact in facts):
            return []
        found = [
            *self._exist(random, facts),
            *self._count(random, facts),
            *self._attributes(random, facts),
            *self._pairs(random, facts),
            *self._compare_number(random, facts),
        ]
        return [found[i] for i in random.permutation(len(found))]

    def _exist(self, random: np.random.Generator, facts: Sequence[Fact]) -> Iterator[Question]:
        seen = [fact for fact in facts if fact.seen]
        for chosen in EXIST:
            asked: list[Filter] = [self._only(self._look(random), chosen) for _ in range(PER_CLASS)]
            asked += [{a: fact.word(a) for a in chosen} for fact in [seen[random.integers(len(seen))]]]
            asked.append(self._altered(random, seen[random.integers(len(seen))], chosen))
            for filter in asked:
                number = number_of(facts, filter)
                if number is not None:
                    text = form(random, "exist", a=article(noun(filter)))
                    answer = "yes" if number else "no"
                    yield Question("exist", f"exist {noun(filter)}", text, answer, about=(filter,))

    def _count(self, random: np.random.Generator, facts: Sequence[Fact]) -> Iterator[Question]:
        for chosen in COUNT:
            words = [self._only(self._look(random), chosen) for _ in range(PER_CLASS)]
            words += [{a: fact.word(a) for a in chosen} for fact in facts]
            for filter in {noun(one): one for one in words}.values():
                number = number_of(facts, filter)
                if number is None or (chosen and number > MOST_COUNTED):
                    continue
                possible = tuple(str(n) for n in range(MOST_COUNTED + 1)) if chosen else self._numbers
                text = form(random, "count", many=noun(filter, many=True))
                yield Question("count", f"count {'+'.join(chosen)}", text, str(number), possible, (filter,))

    def _attributes(self, random: np.random.Generator, facts: Sequence[Fact]) -> Iterator[Question]:
        for fact in facts:
            if not fact.seen:
                continue
            for attribute in ("colour", "shape", "size", "texture"):
                if len(self.vocabulary.words[attribute]) < 2:
                    continue
                filter = described(random, fact, facts, without=[attribute])
                if filter is None:
                    continue
                possible = self._possible(attribute, filter)
                if len(possible) > 1:
                    given = filter.get({"colour": "shape", "shape": "colour"}.get(attribute, ""), "thing")
                    text = form(random, attribute, x=noun(filter))
                    yield Question(attribute, f"{attribute} {given}", text, fact.word(attribute), possible, (filter,))

    def _pairs(self, random: np.random.Generator, facts: Sequence[Fact]) -> Iterator[Question]:
        seen = [i for i, fact in enumerate(facts) if fact.seen]
        tried = [(facts[i], facts[j]) for i, j in permutations(seen, 2)]
        for i in random.permutation(len(tried))[:MARGINS_TRIED]:
            a, b = tried[i]
            x, y = described(random, a, facts), described(random, b, facts)
            if x is not None and y is not None:
                left, front = left_of(a, b), in_front_of(a, b)
                for relation, true in (("left of", left), ("in front of", front)):
                    other = {"left of": "right of", "in front of": "behind"}[relation]
                    if true is not None:
                        yield self._asked(random, "relation", relation, x, y, true)
                        yield self._asked(random, "relation", other, x, y, not true)
                if left is not None:
                    text = form(random, "side", x=noun(x), y=noun(y))
                    yield Question("relation", "side", text, "left" if left else "right", ("left", "right"), (x, y))
            x, y = (described(random, fact, facts, without=["size"]) for fact in (a, b))
            if x is not None and y is not None:
                bigger = SIZES[a.size] - SIZES[b.size]
                yield self._asked(random, "compare_size", "same size", x, y, bigger == 0)
                yield self._asked(random, "compare_size", "bigger", x, y, bigger > 0)
                yield self._asked(random, "compare_size", "smaller", x, y, bigger < 0)

    def _compare_number(self, random: np.random.Generator, facts: Sequence[Fact]) -> Iterator[Question]:
        for attribute in ("colour", "shape", "size", "texture"):
            words = self.vocabulary.words[attribute]
            if len(words) < 2:
                continue
            there = sorted({fact.word(attribute) for fact in facts})
            for _ in range(PER_CLASS):
                first = there[random.integers(len(there))]
                second = str(random.choice([word for word in words if word != first]))
                if random.random() < 0.5:
                    first, second = second, first
                counts = [number_of(facts, {attribute: word}) for word in (first, second)]
                if None in counts:
                    continue
                x, y = ({attribute: first}, {attribute: second})
                more = (counts[0] or 0) - (counts[1] or 0)
                for relation, true in (("more", more > 0), ("fewer", more < 0), ("as many", more == 0)):
                    yield self._asked(random, "compare_number", relation, x, y, true, many=True)

    @staticmethod
    def _asked(
        random: np.random.Generator, kind: str, relation: str, x: Filter, y: Filter, true: bool, many: bool = False
    ) -> Question:
        text = form(random, relation, x=noun(x, many), y=noun(y, many))
        return Question(kind, relation, text, "yes" if true else "no", about=(x, y))

    def _look(self, random: np.random.Generator) -> dict[str, str]:
        """Attributes that a thing of this split may have."""
        shape, colour = self.pairs[random.integers(len(self.pairs))]
        size, texture = (str(random.choice(self.vocabulary.words[a])) for a in ("size", "texture"))
        return {"size": size, "texture": texture, "colour": colour, "shape": shape}

    def _altered(self, random: np.random.Generator, fact: Fact, chosen: Sequence[str]) -> Filter:
        """What a thing is like but for one attribute: the hardest to deny."""
        look = {attribute: fact.word(attribute) for attribute in ("size", "texture", "colour", "shape")}
        other = self._look(random)
        attribute = chosen[int(random.integers(len(chosen)))]
        changed = look | {attribute: other[attribute]}
        if (changed["shape"], changed["colour"]) not in self.pairs:
            changed = other
        return self._only(changed, chosen)

    @staticmethod
    def _only(look: Filter, chosen: Sequence[str]) -> dict[str, str]:
        return {attribute: look[attribute] for attribute in chosen}

    def _possible(self, attribute: str, filter: Filter) -> tuple[str, ...]:
        if attribute == "colour" and "shape" in filter:
            return tuple(colour for shape, colour in self.pairs if shape == filter["shape"])
        if attribute == "shape" and "colour" in filter:
            return tuple(shape for shape, colour in self.pairs if colour == filter["colour"])
        return tuple(self.vocabulary.words[attribute])


def form(random: np.random.Generator, name: str, **words: str) -> str:
    """One of the ways to ask."""
    ways = FORMS[name]
    return ways[random.integers(len(ways))].format(**words)
