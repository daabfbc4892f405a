"""VQA accuracy, by the rule of the VQA evaluation (Antol et al. 2015; github.com/GT-Vision-Lab/VQA).

An answer counts min(matches / 3, 1) against each nine of the ten human answers, and the mean of those is its accuracy.
What surprises in the official script is kept, for else figures could not be compared:

- Where all humans agree, nothing is normalised, not even case: "Yes" against ten times "yes" is 0.
- Punctuation that touches a space anywhere in the answer is removed, other punctuation becomes a space; a comma between
  two digits anywhere makes all of it removed.
- A full stop goes unless a digit follows, and only the first 32 of them; colons and apostrophes stay.
- "none" is 0, number words up to ten are digits, and "a", "an", "the" are dropped.
- Apostrophes that are missing from contractions are put in, "somebody'd" loses its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from embodied.evaluation.scorers.base import Record, Scorer, Scores, answers_of

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
DIGIT_COMMA = re.compile(r"\d,\d")
FULL_STOP = re.compile(r"\.(?!\d)")
FULL_STOPS_REMOVED = 32  # the script hands a flag of that value to `sub`, where a count is expected
NUMBERS = {"none": "0"} | {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten".split())  # noqa: SIM905
}
ARTICLES = frozenset({"a", "an", "the"})

_WHOLE = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _contractions() -> dict[str, str]:
    """From each contraction with one apostrophe left out to the whole."""
    table = {"somebody'd": "somebodyd"}
    for whole in _WHOLE.split():
        for place, letter in enumerate(whole):
            if letter == "'":
                table[whole[:place] + whole[place + 1 :]] = whole
    return table


CONTRACTIONS = _contractions()


def clean(answer: str) -> str:
    """What happens to every answer: line breaks and tabs become spaces, ends are stripped."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def normalise(answer: str) -> str:
    """What happens to every answer of a question that humans disagree about."""
    joined = DIGIT_COMMA.search(answer) is not None
    text = answer
    for mark in PUNCTUATION:
        removed = joined or f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if removed else " ")
    text = FULL_STOP.sub("", text, count=FULL_STOPS_REMOVED)
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> tuple[float, str]:
    """Accuracy of one answer in [0, 1], and the answer as it was compared.

    Args:
        answers: what humans answered, usually ten.
    """
    said, given = clean(prediction), [clean(answer) for answer in answers]
    if len(set(given)) > 1:
        said, given = normalise(said), [normalise(answer) for answer in given]
    matches = [answer == said for answer in given]
    total = sum(matches)
    return sum(min(1.0, (total - match) / 3) for match in matches) / len(matches), said


class VQAAccuracy(Scorer):
    """VQAv2, OK-VQA, TextVQA, VizWiz and what else has several human answers per question.

    References have `answers`, a list of texts; accuracy is also given per `question_type` and `answer_type`.
    With a single answer per question nothing could match against "the others": exact match is the rule for those.
    """

    needs = (("answers", "answer"),)

    def score(self, records: Sequence[Record]) -> Scores:
        """`vqa_accuracy`."""
        self.check(records)
        samples, values = [], []
        for record in records:
            answers = answers_of(record)
            if len(answers) == 1:
                answers = answers * 10  # one answer true by construction stands for ten humans who agree
            value, compared = vqa_accuracy(record.prediction, answers)
            values.append(value)
            samples.append(
                {"id": record.id, "prediction": record.prediction, "compared": compared, "answers": answers_of(record)}
                | {"score": value}
            )
        notes = []
        single = sum(len(answers_of(record)) == 1 for record in records)
        if single:
            notes.append(f"{single} questions have one answer, which stands for ten people who agree")
        return Scores(
            {"vqa_accuracy": self.mean(values)},
            samples,
            self.by(
                records,
                ("question_type", "answer_type"),
                lambda places: {"vqa_accuracy": self.mean([values[i] for i in places])},
            ),
            notes,
        )
