"""Answers that are short texts: exact match (GQA), relaxed accuracy (ChartQA), ANLS (DocVQA)."""

from __future__ import annotations

from collections.abc import Sequence

from embodied.evaluation.scorers.base import Record, Scorer, Scores, answers_of


class ExactMatch(Scorer):
    """The share of answers that equal a reference's.

    `exact_match` is GQA's official rule (Hudson and Manning 2019): the same text, character by character.
    `exact_match_lenient` ignores case, white space at the ends and a last full stop, as LLaVA's conversion to GQA's
    format does, so that "Yes." is "yes". Both are given; the first of them ranks.

    Args:
        lenient: whether the lenient figure ranks instead.

    References have `answers` or `answer`; figures are also given per `question_type`.
    """

    needs = (("answers", "answer"),)

    def __init__(self, lenient: bool = False) -> None:
        self.lenient = lenient

    def score(self, records: Sequence[Record]) -> Scores:
        """`exact_match` and `exact_match_lenient`."""
        self.check(records)
        exact, lenient, samples = [], [], []
        for record in records:
            answers = answers_of(record)
            exact.append(record.prediction in answers)
            lenient.append(_plain(record.prediction) in {_plain(answer) for answer in answers})
            hit = lenient[-1] if self.lenient else exact[-1]
            samples.append(
                {"id": record.id, "prediction": record.prediction, "answers": answers, "score": float(hit)}
                | {"exact": exact[-1], "lenient": lenient[-1]}
            )
        order = ("exact_match_lenient", "exact_match") if self.lenient else ("exact_match", "exact_match_lenient")
        hits = {"exact_match": exact, "exact_match_lenient": lenient}
        return Scores(
            {name: self.rate(hits[name]) for name in order},
            samples,
            self.by(
                records,
                ("question_type",),
                lambda places: {name: self.rate([hits[name][i] for i in places]) for name in order},
            ),
        )


class RelaxedAccuracy(Scorer):
    """ChartQA's relaxed accuracy (Masry et al. 2022; the code is pix2struct's `relaxed_correctness`).

    A number may be off by 5 % of the reference; anything else has to be the same text but for case. "12%" is 0.12. A
    reference of 0 is compared as text, and so is a number with a thousands separator.

    Args:
        tolerance: how far off a number may be, as a fraction of the reference.

    References have `answers` or `answer`; the best of several counts. Figures are also given per `question_type`
    (human, augmented).
    """

    needs = (("answers", "answer"),)

    def __init__(self, tolerance: float = 0.05) -> None:
        if tolerance < 0:
            raise ValueError(f"RelaxedAccuracy: tolerance is a fraction, 0 or more; got {tolerance}")
        self.tolerance = tolerance

    def score(self, records: Sequence[Record]) -> Scores:
        """`relaxed_accuracy`."""
        self.check(records)
        hits, samples = [], []
        for record in records:
            answers = answers_of(record)
            hits.append(any(relaxed_match(record.prediction, answer, self.tolerance) for answer in answers))
            samples.append(
                {"id": record.id, "prediction": record.prediction, "answers": answers, "score": float(hits[-1])}
            )
        return Scores(
            {"relaxed_accuracy": self.rate(hits)},
            samples,
            self.by(
                records, ("question_type",), lambda places: {"relaxed_accuracy": self.rate([hits[i] for i in places])}
            ),
        )


class ANLS(Scorer):
    """Average normalised Levenshtein similarity (Biten et al. 2019), as DocVQA's server computes it.

    Per answer 1 - distance / length, of lower-cased texts with single spaces; the length is that of the longer text
    *before* that. The best reference counts, and what stays below the threshold is 0. At exactly 0.5 the server keeps
    the value, where the paper's formula would not.

    Args:
        threshold: below it an answer counts nothing.

    References have `answers` or `answer`; the mean is also given per `question_type`.
    """

    needs = (("answers", "answer"),)

    def __init__(self, threshold: float = 0.5) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"ANLS: threshold is a fraction, got {threshold}")
        self.threshold = threshold

    def score(self, records: Sequence[Record]) -> Scores:
        """`anls`."""
        self.check(records)
        values, samples = [], []
        for record in records:
            answers = answers_of(record)
            values.append(anls(record.prediction, answers, self.threshold))
            samples.append({"id": record.id, "prediction": record.prediction, "answers": answers, "score": values[-1]})
        return Scores(
            {"anls": self.mean(values)},
            samples,
            self.by(records, ("question_type",), lambda places: {"anls": self.mean([values[i] for i in places])}),
        )


def relaxed_match(prediction: str, answer: str, tolerance: float = 0.05) -> bool:
    """Whether ChartQA's rule takes `prediction` for `answer`."""
    said, wanted = _number(prediction), _number(answer)
    if said is not None and wanted:
        return abs(said - wanted) / abs(wanted) <= tolerance
    return prediction.lower() == answer.lower()


def anls(prediction: str, answers: Sequence[str], threshold: float = 0.5) -> float:
    """Similarity of one answer to the nearest of several, in [0, 1]."""
    said = " ".join(prediction.lower().split())
    distances = []
    for answer in answers:
        length = max(len(prediction), len(answer))
        distances.append(levenshtein(said, " ".join(answer.lower().split())) / length if length else 0.0)
    similarity = 1 - min(distances)
    return similarity if similarity >= threshold else 0.0


def levenshtein(a: str, b: str) -> int:
    """How many characters must be inserted, removed or replaced to turn one text into the other."""
    above = list(range(len(b) + 1))
    for row, left in enumerate(a, start=1):
        line = [row]
        for column, right in enumerate(b, start=1):
            line.append(min(above[column] + 1, line[-1] + 1, above[column - 1] + (left != right)))
        above = line
    return above[-1]


def _plain(text: str) -> str:
    return text.strip().removesuffix(".").strip().lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
