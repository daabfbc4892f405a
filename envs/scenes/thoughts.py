"""What one thinks before one answers a question about a picture, in words.

A thought looks up what the question names among the things that were listed, each with its box, and counts where the
question is about numbers, as chains of thought that are grounded by boxes do (Shikra, Chen et al. 2023, arXiv
2306.15195). Behind `ANSWER` stands the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from envs.scenes.grammar import Filter, fits, full, noun
from envs.scenes.questions import Question
from envs.scenes.references import in_text
from envs.scenes.visibility import Fact, from_left

THINK = "Think step by step."
ANSWER = "Answer:"
NUMBERS = ("count", "compare_number")
PLACES = ("relation",)


def thought(question: Question, facts: Sequence[Fact], size: int) -> str:
    """`red thing: small red cube [120,40,480,999]. blue thing: large blue ball [10,10,200,300]. Answer: yes`.

    Args:
        question: about a picture.
        facts: what the picture shows.
        size: of the picture, pixels.
    """
    return " ".join(
        [*(_looked_up(question, filter, facts, size) for filter in question.about), ANSWER, question.answer]
    )


def _looked_up(question: Question, filter: Filter, facts: Sequence[Fact], size: int) -> str:
    counted = question.kind in NUMBERS
    found = list(_found(filter, facts, size if question.kind in PLACES else None))
    said = ", ".join(found) or "none"
    return f"{noun(filter, many=counted)}: {said}{f', {len(found)}' if counted and found else ''}."


def _found(filter: Filter, facts: Sequence[Fact], size: int | None) -> Iterator[str]:
    for fact in from_left(facts):
        if fits(fact, filter):
            yield full(fact) if size is None else f"{full(fact)} {in_text(fact.box, size)}"
