"""Questions about a place that an agent walked through: EQA, IQUAD and SQA3D."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from embodied.evaluation.scorers.base import Record, Scorer, Scores, answers_of, wrong

KINDS = {"0": "existence", "1": "counting", "2": "containment"}
"""IQUAD's question types."""

YES, NO = {"yes", "true", "1"}, {"no", "false", "0"}

LOW = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
TEENS = ["eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
COUNTED = [*LOW, *TEENS, "twenty"]


class EQA(Scorer):
    """Share of questions whose answer is the right one of the answers' vocabulary (EQA on House3D, MP3D-EQA).

    Officially a classifier chooses an entry of the vocabulary and entries are compared. Text is compared as text
    here: letter case, spaces at the ends and a last full stop do not count, and nothing else is forgiven.

    Args:
        by: keys of references to split the figure by.

    References have `answers` or `answer`.
    """

    needs = (("answers", "answer"),)

    def __init__(self, by: Sequence[str] = ("question_type",)) -> None:
        self.parts = tuple(by)

    def score(self, records: Sequence[Record]) -> Scores:
        """`accuracy`."""
        self.check(records)
        right = [plain(record.prediction) in map(plain, answers_of(record)) for record in records]
        return one_figure(self, records, right, self.parts)


class IQUAD(Scorer):
    """Share of right answers, by the kind of the question: is there one, how many, is it inside.

    Existence and containment are answered by yes or no (true, false, 1 and 0 are understood too). Counts are answered
    by one of a few numbers, in digits or words.

    Args:
        most: the highest number that is an answer to "how many"; a higher one is an error of the references.

    References have `question_type` (0, 1 or 2) and `answer`, as IQUAD's tables do.
    """

    needs = ("question_type", "answer")

    def __init__(self, most: int = 3) -> None:
        self.most = most

    def score(self, records: Sequence[Record]) -> Scores:
        """`accuracy` of all, and of each kind under `kind: ...`."""
        self.check(records)
        kinds = [Record(r.id, r.prediction, {"kind": self._kind(r)}, r.where) for r in records]
        right = [meant(record.prediction, self._counts(record)) == self._truth(record) for record in records]
        return one_figure(self, kinds, right, ("kind",))

    def check(self, records: Sequence[Record]) -> None:
        super().check(records)
        for record in records:
            self._truth(record)

    def _kind(self, record: Record) -> str:
        kind = str(record.reference["question_type"]).strip()
        if kind not in KINDS:
            raise wrong(record, f"has question_type {kind}: 0 (existence), 1 (counting) or 2 (containment) is needed")
        return KINDS[kind]

    def _counts(self, record: Record) -> bool:
        return self._kind(record) == "counting"

    def _truth(self, record: Record) -> int:
        truth = meant(str(record.reference["answer"]), self._counts(record))
        if truth is None or truth > (self.most if self._counts(record) else 1):
            wanted = f"a number up to {self.most}" if self._counts(record) else "yes or no"
            raise wrong(record, f"has the answer {record.reference['answer']!r}, which is not {wanted}")
        return truth


class SQA3D(Scorer):
    """Situated questions: exact match after tidying, and the refined match of LEO's scorer.

    `exact_match` is the rank-1 accuracy that tables give. `refined_match` also lets one text that contains the other,
    both without spaces, count. Tidying: lower case, single spaces, no punctuation but , ' - and :, numbers up to
    twenty in words, no articles before a word. The lists of single misspellings that scorers carry are not repeated
    here: an answer that hits one of them may be judged differently.

    Args:
        by: keys of references to split the figures by.

    References have `answers` or `answer`.
    """

    needs = (("answers", "answer"),)

    def __init__(self, by: Sequence[str] = ("question_type",)) -> None:
        self.parts = tuple(by)

    def score(self, records: Sequence[Record]) -> Scores:
        """`exact_match` and `refined_match`."""
        self.check(records)
        exact, refined, samples = [], [], []
        for record in records:
            said, truths = tidy(record.prediction), [tidy(answer) for answer in answers_of(record)]
            exact.append(said in truths)
            refined.append(exact[-1] or any(contain(said, truth) for truth in truths))
            samples.append(
                {
                    "id": record.id,
                    "prediction": record.prediction,
                    "answers": answers_of(record),
                    "refined": float(refined[-1]),
                    "score": float(exact[-1]),
                }
            )

        def of(places: Sequence[int]) -> dict[str, Any]:
            return {
                "exact_match": self.rate([exact[place] for place in places]),
                "refined_match": self.rate([refined[place] for place in places]),
            }

        return Scores(of(range(len(records))), samples, self.by(records, self.parts, of))


def one_figure(scorer: Scorer, records: Sequence[Record], right: Sequence[bool], parts: Sequence[str]) -> Scores:
    """Accuracy of all records and of their parts."""
    samples = [
        {"id": record.id, "prediction": record.prediction, "score": float(hit)}
        for record, hit in zip(records, right, strict=True)
    ]
    groups = scorer.by(records, parts, lambda places: {"accuracy": scorer.rate([right[place] for place in places])})
    return Scores({"accuracy": scorer.rate(right)}, samples, groups)


def plain(text: Any) -> str:
    """A text without what EQA forgives."""
    return str(text).strip().lower().removesuffix(".").strip()


def meant(text: str, count: bool) -> int | None:
    """The number an answer gives, or 1 for yes and 0 for no; None where it gives neither."""
    word = plain(text)
    if count:
        return int(word) if word.isdecimal() and word.isascii() else COUNTED.index(word) if word in COUNTED else None
    return 1 if word in YES else 0 if word in NO else None


def tidy(text: str) -> str:
    """A text as SQA3D's answers are compared."""
    text = re.sub(r"[^a-z0-9,'\s\-:]+", "", text.lower())
    text = re.sub(r"\b\d+\b", lambda found: COUNTED[int(found[0])] if int(found[0]) <= 20 else found[0], text)
    text = re.sub(r"\b(?:a|an|the)\s+(?=[a-z])", "", text)
    return " ".join(text.split())


def contain(one: str, other: str) -> bool:
    """Whether one text is in the other, spaces aside; an empty one is in none."""
    one, other = "".join(one.split()), "".join(other.split())
    return bool(one and other) and (one in other or other in one)
