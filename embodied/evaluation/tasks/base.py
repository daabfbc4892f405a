"""What answers questions about pictures, and what asks them.

A `Responder` is anything that continues conversations: a language model with eyes, a server, a fake in a test. A `Task`
is data: samples, the form of the prompt, the settings of the generation, and a scorer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

from embodied.data.multimodal.sample import Sample
from embodied.evaluation.scorers.base import Record, Scorer
from embodied.evaluation.scorers.choice import LETTERS, options_of, rotations

Conversation = list[dict[str, Any]]
"""Chat messages as in `embodied.data.multimodal.sample`; the last is the user's."""


@runtime_checkable
class Responder(Protocol):
    """Continues conversations.

    What it answers depends on the conversation and the settings alone, not on what else is in the batch.
    """

    def respond(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> list[str]:
        """The assistant's next turn in each conversation.

        Args:
            conversations: each a system message at most, then turns, the last of them the user's.
            max_new_tokens: at most so many tokens each.
            temperature: 0 is greedy.
            top_p: the share of probability to sample from.
            stop: texts that end an answer, and are not part of it.
            seed: of the sampling.
        """
        ...

    def loglikelihood(
        self, conversations: Sequence[Conversation], continuations: Sequence[str]
    ) -> list[tuple[float, bool]]:
        """Of each continuation after its conversation: the sum of its tokens' log-probabilities, natural logarithm,
        and whether greedy decoding would say it."""
        ...

    def describe(self) -> dict[str, Any]:
        """Which model this is, for the result: `name`, what tells its weights, and `template`, its chat template."""
        ...


@dataclass(frozen=True)
class Generation:
    """How answers are generated; see `Responder.respond`."""

    max_new_tokens: int = 16
    temperature: float = 0.0
    top_p: float = 1.0
    stop: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1 or self.seed < 0:
            raise ValueError(
                "generation needs max_new_tokens >= 1, temperature >= 0, 0 < top_p <= 1 and seed >= 0, got "
                + ", ".join(f"{name}={value}" for name, value in self.to_dict().items())
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self) | {"stop": list(self.stop)}


@dataclass(frozen=True)
class Question:
    """One conversation to continue, and what the answer is held against."""

    id: str
    conversation: Conversation
    reference: dict[str, Any]
    where: str = ""

    def record(self, answer: str) -> Record:
        """The answer as a scorer takes it."""
        return Record(self.id, answer, self.reference, self.where)


@dataclass(frozen=True)
class First:
    """What is asked before the question.

    Attributes:
        prompt: the words.
        max_new_tokens: of the answer to them.
        pictures: whether the question behind it is asked with the pictures still there; false: the model answers from
            its own words alone, as who reads a caption (PICa, Yang et al. 2022, arXiv 2109.05014).
    """

    prompt: str
    max_new_tokens: int = 256
    pictures: bool = True

    def __post_init__(self) -> None:
        if not self.prompt.strip() or self.max_new_tokens < 1:
            raise ValueError(
                f"first needs a prompt and max_new_tokens >= 1, got {self.prompt!r}, {self.max_new_tokens}"
            )

    def asked(self, conversation: Conversation) -> Conversation:
        """The conversation with these words for its last question's, pictures and all."""
        *before, last = conversation
        media = [part for part in last["content"] if part["type"] != "text"]
        return [*before, {"role": "user", "content": [*media, {"type": "text", "text": self.prompt}]}]

    def answered(self, conversation: Conversation, answer: str) -> Conversation:
        """The conversation to continue, when this was answered; pictures stay with what was asked first, if they stay.

        A model that said nothing is asked alone.
        """
        if not answer.strip():
            return conversation
        said = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        last = _wordy(conversation[-1])
        before = self.asked(conversation)
        return [*(before if self.pictures else [_wordy(turn) for turn in before]), said, last]


@dataclass(frozen=True)
class Task:
    """What a model is asked.

    Attributes:
        name: of the task.
        samples: what it is asked about.
        scorer: the rule.
        prompt: what the last user turn becomes: `{question}` is its text, `{options}` the options by letter, one per
            line, `{hint}` the hint; a line that holds nothing but an empty place is left out. Pictures stay in front.
        generation: the settings.
        system: a system message for all conversations; None leaves the samples' own.
        circular: ask each choice once per rotation of its options (MMBench's CircularEval).
        limit: the first so many samples only; None for all.
        first: what the model is asked about the same pictures before, its own answer then standing before the question
            (Compositional Chain-of-Thought, Mitra et al. 2024, arXiv 2311.17076); None: nothing.
        answer_after: what stands between a thought and the answer, such as `Answer:`; behind the last one that is said,
            in capitals or not, stands what is scored, and all that is said where there is none. None: all is scored.
    """

    name: str
    samples: Iterable[Sample]
    scorer: Scorer
    prompt: str = "{question}"
    generation: Generation = field(default_factory=Generation)
    system: str | None = None
    circular: bool = False
    limit: int | None = None
    first: First | None = None
    answer_after: str | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"task {self.name}: limit is 1 or more, or null for all; got limit={self.limit}")
        if "{question}" not in self.prompt:
            raise ValueError(f"task {self.name}: the prompt has no {{question}}, so nothing would be asked")
        if self.answer_after is not None and not self.answer_after.strip():
            raise ValueError(f"task {self.name}: answer_after is a text, or null; got {self.answer_after!r}")

    def answer(self, said: str) -> str:
        """What is scored of what a model said."""
        marks = list(re.finditer(re.escape(self.answer_after), said, re.IGNORECASE)) if self.answer_after else []
        return said[marks[-1].end() :].strip() if marks else said

    def questions(self) -> Iterable[Question]:
        """Every question, in order.

        Raises:
            BrokenSample: a sample asks nothing.
            ValueError: a sample lacks what the rule needs, or is there twice; or there are none.
        """
        seen: set[str] = set()
        where = str(getattr(self.samples, "file", ""))
        for sample in itertools.islice(self.samples, self.limit):
            if sample.id in seen:
                raise ValueError(f"{where or sample.source}: sample {sample.id} is there twice")
            seen.add(sample.id)
            reference = dict(sample.meta)
            if sample.answered:
                reference.setdefault("answer", sample.answer())
            asked = sample.question()
            reference.setdefault("question", _said(asked[-1]))
            question = Question(sample.id, asked, reference, where or sample.source)
            self.scorer.check([question.record("-")])
            for part in self._rotated(question) if self.circular else [question]:
                yield Question(part.id, self._prompted(part), part.reference, part.where)
        if not seen:
            raise ValueError(f"task {self.name} has no samples{' in ' + where if where else ''}")

    def _rotated(self, question: Question) -> Iterable[Question]:
        options, answer = options_of(question.record("-"))
        for number, (rotated, letter) in enumerate(rotations(options, answer)):
            reference = question.reference | {"options": rotated, "answer": letter, "group": question.id}
            name = question.id if number == 0 else f"{question.id}/{number}"
            yield Question(name, question.conversation, reference, question.where)

    def _prompted(self, question: Question) -> Conversation:
        *before, last = question.conversation
        options: Any = question.reference.get("options") or {}
        if isinstance(options, list):
            options = dict(zip(LETTERS, options, strict=False))
        places = {
            "{question}": _said(last),
            "{options}": "\n".join(f"{letter}. {option}" for letter, option in options.items()),
            "{hint}": str(question.reference.get("hint") or ""),
        }
        lines = [line for line in self.prompt.split("\n") if places.get(line.strip(), line)]
        text = "\n".join(_filled(line, places) for line in lines)
        media = [part for part in last["content"] if part["type"] != "text"]
        turns = [*before, {"role": "user", "content": [*media, {"type": "text", "text": text}]}]
        if self.system is not None:
            turns = [turn for turn in turns if turn["role"] != "system"]
            turns.insert(0, {"role": "system", "content": [{"type": "text", "text": self.system}]})
        return turns


def _wordy(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn without its pictures and films."""
    return turn | {"content": [part for part in turn["content"] if part["type"] == "text"]}


def _said(turn: dict[str, Any]) -> str:
    return "\n".join(part["text"] for part in turn["content"] if part["type"] == "text").strip()


def _filled(line: str, places: dict[str, str]) -> str:
    """A line with its places filled; what is filled in is never read as a place itself."""
    for name, value in places.items():
        if name in line:
            before, _, after = line.partition(name)
            return f"{_filled(before, places)}{value}{_filled(after, places)}"
    return line
