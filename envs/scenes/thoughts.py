"""What one thinks before one answers a question about a picture, in words.

A thought looks up what the question names among the things that were listed, with its box, as chains of thought that
are grounded do (Shikra, Chen et al. 2023, arXiv 2306.15195); or it counts them; and where the question is about places
it says in which order the two things stand. Behind `ANSWER` stands the answer.

The boxes are what teaches to look up: of thoughts without them hardly a word depends on which thing is meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from envs.scenes.grammar import Filter, fits, full, noun
from envs.scenes.questions import Question
from envs.scenes.references import boxed
from envs.scenes.visibility import Fact, from_left, from_near

THINK = "Think step by step."
ANSWER = "Answer:"
FROM_LEFT, FROM_NEAR = "From left to right", "From near to far"
NUMBERS = ("count", "compare_number")
ORDERS = {
    "left of": (FROM_LEFT, from_left),
    "right of": (FROM_LEFT, from_left),
    "side": (FROM_LEFT, from_left),
    "in front of": (FROM_NEAR, from_near),
    "behind": (FROM_NEAR, from_near),
}
"""Of `relation`, by key: the order that tells the answer."""


def thought(question: Question, facts: Sequence[Fact], size: int) -> str:
    """`cube: small red cube [120,40,480,399]. ball: large blue ball [10,10,99,99]. From left to right: large blue ball,
    small red cube. Answer: no`.

    Args:
        question: about a picture.
        facts: what the picture shows.
        size: of the picture, pixels.
    """
    return " ".join([*_steps(question, facts, size), ANSWER, question.answer])


def _steps(question: Question, facts: Sequence[Fact], size: int) -> Iterator[str]:
    counted = question.kind in NUMBERS
    for filter in question.about:
        found = _named([filter], from_left(facts)) if counted else _boxed(filter, facts, size)
        number = f", {len(found)}" if counted and found else ""
        yield f"{noun(filter, many=counted)}: {', '.join(found) or 'none'}{number}."
    if question.kind == "relation":
        words, order = ORDERS[question.key]
        yield f"{words}: {', '.join(_named(question.about, order(facts)))}."


def _boxed(filter: Filter, facts: Sequence[Fact], size: int) -> list[str]:
    return [boxed(fact, size) for fact in from_left(facts) if fits(fact, filter)]


def _named(filters: Sequence[Filter], facts: Sequence[Fact]) -> list[str]:
    return [full(fact) for fact in facts if any(fits(fact, filter) for filter in filters)]
