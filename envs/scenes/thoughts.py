"""What one thinks before one answers a question about a picture, in words.

A thought looks up what the question names among the things that were listed, and goes on as the question needs: it
counts, or says in which order the two things stand. Behind `ANSWER` stands the answer. (Chains of thought about what a
picture shows: Shikra, Chen et al. 2023, arXiv 2306.15195.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from envs.scenes.grammar import Filter, fits, full, noun
from envs.scenes.questions import Question
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


def thought(question: Question, facts: Sequence[Fact]) -> str:
    """`cube: small red cube. ball: large blue ball. From left to right: large blue ball, small red cube. Answer: no`.

    Args:
        question: about a picture.
        facts: what the picture shows.
    """
    return " ".join([*_steps(question, facts), ANSWER, question.answer])


def _steps(question: Question, facts: Sequence[Fact]) -> Iterator[str]:
    counted = question.kind in NUMBERS
    for filter in question.about:
        found = _found([filter], from_left(facts))
        number = f", {len(found)}" if counted and found else ""
        yield f"{noun(filter, many=counted)}: {', '.join(found) or 'none'}{number}."
    if question.kind == "relation":
        words, order = ORDERS[question.key]
        yield f"{words}: {', '.join(_found(question.about, order(facts)))}."


def _found(filters: Sequence[Filter], facts: Sequence[Fact]) -> list[str]:
    return [full(fact) for fact in facts if any(fits(fact, filter) for filter in filters)]
