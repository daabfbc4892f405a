"""Conversations of several turns about a picture, in which later questions refer to what was said before.

A conversation picks a thing, asks for one of its attributes by the others, and goes on about `it`: other attributes, a
relation to another thing, whether anything else shares its colour or shape. It ends with a number. Whether the answer
to a question of yes and no is yes is decided by a coin before the question is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.scenes.grammar import described, noun, number_of
from envs.scenes.visibility import Fact, in_front_of, left_of
from envs.scenes.vocabulary import NUMBERS, article

Turn = tuple[str, str, str]
"""What is asked, what is answered, and the answer in one word."""
LEAST_TURNS = 3
FOLLOW_UP = {
    "colour": ("And its colour?", "What colour is it?"),
    "shape": ("And its shape?", "What shape is it?"),
    "size": ("Is it small or large?", "What size is it?"),
    "texture": ("What texture does it have?", "And its texture?"),
}


def dialogue(random: np.random.Generator, facts: Sequence[Fact]) -> list[Turn]:
    """A conversation about a picture; empty where too little can be said of it."""
    seen = [fact for fact in facts if fact.seen]
    if not seen:
        return []
    topic = seen[random.integers(len(seen))]
    attributes = [("colour", "shape", "size", "texture")[i] for i in random.permutation(4)]
    opening = next(
        ((a, name) for a in attributes if (name := described(random, topic, facts, without=[a])) is not None), None
    )
    if opening is None:
        return []
    attribute, name = opening
    turns = [_told(f"What {attribute} is the {noun(name)}?", attribute, topic)]
    if attribute == "texture":
        turns = [_told(f"What texture does the {noun(name)} have?", attribute, topic)]
    unsaid = [a for a in attributes if a != attribute and a not in name]
    for other in unsaid[:1]:
        turns.append(_told(FOLLOW_UP[other][random.integers(2)], other, topic))
    turns += _where(random, topic, facts)
    turns += _others(random, topic, facts)
    if len(seen) == len(facts):
        count = f"There are {NUMBERS[len(seen)]}." if len(seen) > 1 else "There is one."
        turns.append(("How many things are on the table?", count, str(len(seen))))
    return turns if len(turns) >= LEAST_TURNS else []


def _told(text: str, attribute: str, fact: Fact) -> Turn:
    word = fact.word(attribute)
    return text, f"It is {article(word) if attribute == 'shape' else word}.", word


def _where(random: np.random.Generator, topic: Fact, facts: Sequence[Fact]) -> list[Turn]:
    wanted = bool(random.random() < 0.5)
    for i in random.permutation(len(facts)):
        other = facts[i]
        name = described(random, other, facts) if other.seen and other is not topic else None
        if name is None:
            continue
        left, front = left_of(topic, other), in_front_of(topic, other)
        known = [("to the left of", left), ("to the right of", None if left is None else not left)]
        known += [("in front of", front), ("behind", None if front is None else not front)]
        fitting = [words for words, true in known if true is wanted]
        if fitting:
            words = fitting[random.integers(len(fitting))]
            is_so = f"Yes, it is {words} the {noun(name)}." if wanted else f"No, it is not {words} the {noun(name)}."
            return [(f"Is it {words} the {noun(name)}?", is_so, "yes" if wanted else "no")]
    return []


def _others(random: np.random.Generator, topic: Fact, facts: Sequence[Fact]) -> list[Turn]:
    wanted = bool(random.random() < 0.5)
    for attribute in (("colour", "shape", "texture")[i] for i in random.permutation(3)):
        word = topic.word(attribute)
        number = number_of(facts, {attribute: word})
        if number is None or (number > 1) is not wanted:
            continue
        what = f"another {word}" if attribute == "shape" else f"another {word} thing"
        if not wanted:
            return [(f"Is there {what}?", "No, it is the only one.", "no")]
        more = f"{NUMBERS[number - 1]} more"
        if attribute == "shape":
            is_so = f"Yes, there {'is' if number == 2 else 'are'} {more}."
        else:
            is_so = f"Yes, there {'is' if number == 2 else 'are'} {more} {noun({attribute: word}, number > 2)}."
        return [(f"Is there {what}?", is_so, "yes")]
    return []
