"""Open-ended answers, graded by a judge."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from embodied.evaluation.scorers.base import Record, Scorer, Scores, answers_of
from embodied.evaluation.scorers.judges import Judge, NoVerdict

PROMPT = """\
You grade an answer to a question about a picture that you cannot see. Trust the reference.

Question: {question}
Reference answer: {reference}
Answer to grade: {answer}

How well does the answer agree with the reference, from {low} (not at all) to {high} (fully)?
Write one line of reasons, then a last line of the form "Score: <number>".
"""
SCORE = re.compile(r"score\s*[:=]\s*\**\s*(-?\d+(?:\.\d+)?)", re.IGNORECASE)
ALONE = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*")


class Judged(Scorer):
    """The mean grade that a judge gives, as a share of the best one.

    The verdict's last "Score: <number>" counts, or a verdict that is nothing but a number. The prompt, the judge's
    identity, its verdicts and how often it had to be asked again are in the result: another judge is another scale.

    Args:
        judge: who grades.
        prompt: with the places {question}, {reference}, {answer}, {low} and {high}.
        low, high: the scale's ends.
        tolerate: how many samples may stay without a verdict; they are left out and counted. One more is an error.

    References have `answers` or `answer`, and `question` where the prompt asks for it.
    """

    needs: ClassVar[tuple[str | tuple[str, ...], ...]] = (("answers", "answer"),)

    def __init__(
        self, judge: Judge, prompt: str = PROMPT, low: float = 0.0, high: float = 10.0, tolerate: int = 0
    ) -> None:
        if high <= low:
            raise ValueError(f"Judged: high is more than low, got low={low:g} and high={high:g}")
        for place in ("{answer}", "{reference}"):
            if place not in prompt:
                raise ValueError(f"Judged: the prompt has no {place}, without which the judge sees nothing to compare")
        self.judge, self.prompt, self.low, self.high, self.tolerate = judge, prompt, low, high, tolerate

    def score(self, records: Sequence[Record]) -> Scores:
        """`grade` in [0, 1].

        Raises:
            ValueError: more samples than tolerated got no verdict.
        """
        self.check(records)
        samples: list[dict[str, Any]] = []
        grades: list[float] = []
        failed: list[str] = []
        before = self.judge.retried
        for record in records:
            try:
                verdict = self.judge.ask(self._filled(record))
                grade = self._grade(verdict)
            except NoVerdict as error:
                failed.append(record.id)
                if len(failed) > self.tolerate:
                    raise ValueError(f"sample {record.id} got no verdict: {error}") from None
                samples.append({"id": record.id, "prediction": record.prediction, "verdict": None, "score": None})
                continue
            grades.append((grade - self.low) / (self.high - self.low))
            samples.append({"id": record.id, "prediction": record.prediction, "verdict": verdict, "score": grades[-1]})
        if not grades:
            raise ValueError("no sample got a verdict")
        notes = [f"{len(failed)} samples got no verdict and are left out: {', '.join(failed[:5])}"] if failed else []
        tools = {
            "judge": self.judge.identity(),
            "judge_prompt": self.prompt,
            "scale": [self.low, self.high],
            "retries": self.judge.retried - before,
        }
        return Scores({"grade": self.mean(grades)}, samples, {}, notes, tools)

    def _filled(self, record: Record) -> str:
        parts = {
            "{question}": str(record.reference.get("question", "")),
            "{reference}": " | ".join(answers_of(record)),
            "{answer}": record.prediction,
            "{low}": f"{self.low:g}",
            "{high}": f"{self.high:g}",
        }
        # all at once, so that an answer that contains "{reference}" stays what it is
        return re.sub("|".join(map(re.escape, parts)), lambda match: parts[match.group()], self.prompt)

    def _grade(self, verdict: str) -> float:
        alone, found = ALONE.fullmatch(verdict), SCORE.findall(verdict)
        text = alone.group(1) if alone else found[-1] if found else None
        if text is None:
            raise NoVerdict(f"its verdict names no score: {verdict[:80]!r}")
        grade = float(text)
        if not self.low <= grade <= self.high:
            raise NoVerdict(f"its score {grade:g} is not between {self.low:g} and {self.high:g}")
        return grade
