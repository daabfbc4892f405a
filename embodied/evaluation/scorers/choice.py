"""Multiple choice: reading the option that an answer names, accuracy, and MMBench's circular evaluation.

An answer is read as VLMEvalKit reads it for MMBench (Liu et al. 2023), without asking another model: punctuation
becomes space; if exactly one option letter stands alone among the words, and among the last four of them, that is the
choice; else "answer is B" says it; else the one option whose text the answer contains, unless the answer is more than
twice as long as all options together. Refusals choose no option. What stays unread counts as wrong, and is counted.

Three more forms that models are trained to give are read first, each only where it starts the answer: "B", "B." or
"(B) ...", as LLaVA's evaluation of ScienceQA does, and "The answer is B." of ScienceQA's own baseline.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from embodied.evaluation.scorers.base import Record, Scorer, Scores, wrong

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
LEADING = re.compile(r"\(?([A-Z])(?:[.):]+(?:\s|$)|$)")
SAYS = re.compile(r"answer\s+is:?\s+\(?\**([A-Z])\b", re.IGNORECASE)
SPACED = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
NONE = "Z"


def read_choice(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter that an answer names; `Z` for a refusal, None where it cannot be told.

    Args:
        options: by letter, what each option says.
    """
    text = answer.strip()
    if any(refusal in text for refusal in REFUSALS):
        return NONE
    leading = LEADING.match(text)
    if leading and leading.group(1) in options:
        return leading.group(1)
    words = text.translate(SPACED).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - 5:
        return named[0]
    if not named and NONE in words:
        return NONE
    says = SAYS.search(text)
    if says and says.group(1).upper() in options:
        return says.group(1).upper()
    said = text.lower()
    if len(said) > 2 * sum(len(option) for option in options.values()):
        return None
    inside = [letter for letter, option in options.items() if option.lower() in said]
    return inside[0] if len(inside) == 1 else None


class MultipleChoice(Scorer):
    """The share of questions whose right option was named (AI2D, ScienceQA, SEED-Bench, MMBench).

    References have `options` (a list of texts, or a dict from letters to texts) and `answer`: its letter, its place
    counted from 0, or its text. Where references have a `group`, those of one group are the same question with its
    options in other places, and `circular_accuracy` counts a group only if every one of it is right (MMBench's
    CircularEval); plain accuracy is then that of each group's first, and `every_rotation` that of all.

    Args:
        by: names of reference fields to give figures for each value of.
        modulo: where ids are numbers and no `group` is given: ids with the same rest are one group (MMBench 1000000).
    """

    needs = ("options", "answer")

    def __init__(self, by: Sequence[str] = ("category",), modulo: int | None = None) -> None:
        self.parts, self.modulo = tuple(by), modulo

    def score(self, records: Sequence[Record]) -> Scores:
        """`accuracy`; with groups `circular_accuracy` first."""
        self.check(records)
        hits, samples, unread = [], [], 0
        for record in records:
            options, answer = options_of(record)
            read = read_choice(record.prediction, options)
            unread += read is None
            hits.append(read == answer)
            samples.append(
                {"id": record.id, "prediction": record.prediction, "read": read, "answer": answer}
                | {"score": float(hits[-1])}
            )
        groups: dict[str, list[int]] = {}
        for place, record in enumerate(records):
            groups.setdefault(self._group(record), []).append(place)
        notes = [f"{unread} answers named no option and count as wrong"] if unread else []
        if len(groups) == len(records):
            figures = lambda places: {"accuracy": self.rate([hits[i] for i in places])}  # noqa: E731
            return Scores(figures(list(range(len(records)))), samples, self.by(records, self.parts, figures), notes)
        firsts = [places[0] for places in groups.values()]
        whole = {places[0]: all(hits[i] for i in places) for places in groups.values()}

        def of_groups(places: list[int]) -> dict[str, Any]:
            heads = [firsts[i] for i in places]
            return {
                "circular_accuracy": self.rate([whole[i] for i in heads]),
                "accuracy": self.rate([hits[i] for i in heads]),
            }

        metrics = of_groups(list(range(len(firsts)))) | {"every_rotation": self.rate(hits)}
        return Scores(metrics, samples, self.by([records[i] for i in firsts], self.parts, of_groups), notes)

    def _group(self, record: Record) -> str:
        group = record.reference.get("group")
        if group is None and self.modulo and record.id.isdecimal():
            return str(int(record.id) % self.modulo)
        return record.id if group is None else str(group)


class ScienceQA(MultipleChoice):
    """ScienceQA's accuracy (Lu et al. 2022), per subject, kind of context and grade as its tables have it.

    References are rows of `problems.json`: `options` (its `choices`), `answer` (a place), `subject`, `hint`, `image`,
    `grade`. A question with text and picture counts for both kinds of context.
    """

    def __init__(self) -> None:
        super().__init__(by=())

    def score(self, records: Sequence[Record]) -> Scores:
        """`accuracy`."""
        found = super().score(records)
        members: dict[str, list[bool]] = {}
        for record, sample in zip(records, found.samples, strict=True):
            for part in self._parts(record.reference):
                members.setdefault(part, []).append(bool(sample["score"]))
        found.groups = {part: {"accuracy": self.rate(hits)} for part, hits in sorted(members.items())}
        return found

    def _parts(self, reference: Mapping[str, Any]) -> list[str]:
        parts = [f"subject: {reference['subject']}"] if reference.get("subject") else []
        hint, image = bool(reference.get("hint")), bool(reference.get("image"))
        parts += ["context: text"] * hint + ["context: image"] * image + ["context: none"] * (not hint and not image)
        grade = str(reference.get("grade", "")).removeprefix("grade")
        if grade.isdecimal():
            parts.append("grade: 1 to 6" if int(grade) <= 6 else "grade: 7 to 12")
        return parts


def options_of(record: Record) -> tuple[dict[str, str], str]:
    """A reference's options by letter, empty ones left out, and the letter of the right one.

    Raises:
        ValueError: there are fewer than two, or the answer is none of them.
    """
    found = record.reference["options"]
    if isinstance(found, list):
        if len(found) > len(LETTERS):
            raise wrong(record, f"has {len(found)} options, but only {len(LETTERS)} letters exist")
        found = dict(zip(LETTERS, found, strict=False))
    if not isinstance(found, dict):
        raise wrong(record, f"has options {found!r}: a list of texts is needed, or a dict from letters to texts")
    options = {str(letter): str(option) for letter, option in found.items() if option not in (None, "", "nan")}
    if len(options) < 2:
        raise wrong(record, f"has {len(options)} options: a choice needs two")
    answer = record.reference["answer"]
    if isinstance(answer, int) and not isinstance(answer, bool):
        letter = list(options)[answer] if 0 <= answer < len(options) else None
    elif answer in options:
        letter = str(answer)
    elif isinstance(answer, str) and answer.isdecimal() and answer not in options.values():
        letter = list(options)[int(answer)] if int(answer) < len(options) else None
    else:
        letter = next((key for key, option in options.items() if option == answer), None)
    if letter is None:
        raise wrong(record, f"has the answer {answer!r}, which is none of its {len(options)} options")
    return options, letter


def rotations(options: Mapping[str, str], answer: str) -> list[tuple[dict[str, str], str]]:
    """A question's options in every rotation, as CircularEval asks them, with the letter that is then right.

    The first is the question as it is; in each next one every option stands one place earlier.
    """
    letters, texts = list(options), list(options.values())
    place, n = letters.index(answer), len(letters)
    return [
        (dict(zip(letters, texts[shift:] + texts[:shift], strict=True)), letters[(place - shift) % n])
        for shift in range(n)
    ]
