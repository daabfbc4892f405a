"""OpenEQA: open-vocabulary answers about a place, marked by a judge (LLM-Match)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embodied.evaluation.scorers.base import Record, Scores, answers_of
from embodied.evaluation.scorers.judged import Judged
from embodied.evaluation.scorers.judges import Judge, NoVerdict
from embodied.evaluation.scorers.reading import References, Unfit

PROMPT = """\
You mark an answer to a question about an indoor place that you cannot see. Trust the reference answers.

Question: {question}
Reference answers: {reference}
Answer to mark: {answer}

Mark from {low} (says something else than every reference) to {high} (says the same as one of them); in between for an
answer that is partly right. Reply with one line of the form "Your mark: <number>".
"""
MARK = re.compile(r"Your mark:\s*(-?\d+)", re.IGNORECASE)
ALONE = re.compile(r"\s*(\d+)\s*")


class OpenEQAAnswers(References):
    """OpenEQA's questions; a prediction may be null, where a model declined to answer."""

    def prediction(self, where: str, row: Any, name: str) -> str:
        if isinstance(row, dict) and any(key in row and row[key] is None for key in ("answer", "prediction")):
            return ""
        try:
            return super().prediction(where, row, name)
        except Unfit:
            if isinstance(row, dict) and any(row.get(key) == "" for key in ("answer", "prediction")):
                return ""
            raise


class OpenEQA(Judged):
    """Mean of 100 % * (mark - 1) / 4 over marks from 1 to 5, which a judge gives.

    A mark beyond the ends counts as the end; no answer counts as 0 % and the judge is not asked. The judge of the
    published figures was gpt-4-1106-preview (temperature 0.2, seed 1234, 32 tokens): another judge, or another
    prompt, is another scale, and both are in the result.

    Args:
        judge: who marks.
        prompt: with the places {question}, {reference} and {answer}, and {low} and {high} if wanted; null: one of our
            own.
        prompt_file: a text file with the prompt, instead, such as OpenEQA's own with its places renamed.
        tolerate: how many questions may stay without a mark; they are left out and counted.
        by: keys of references to split the figure by.

    References have `question`, `answer` and, for some, `extra_answers`.
    """

    needs = ("question", "answer")

    def __init__(
        self,
        judge: Judge,
        prompt: str | None = None,
        prompt_file: str | None = None,
        tolerate: int = 0,
        by: Sequence[str] = ("category",),
    ) -> None:
        if prompt is not None and prompt_file is not None:
            raise ValueError("OpenEQA: give prompt or prompt_file, not both")
        if prompt_file is not None:
            prompt = Path(prompt_file).read_text(encoding="utf-8")
        super().__init__(judge, PROMPT if prompt is None else prompt, 1, 5, tolerate)
        self.parts = tuple(by)

    def score(self, records: Sequence[Record]) -> Scores:
        """`correctness` in [0, 1], of all and of each category.

        Raises:
            ValueError: more questions than tolerated got no mark.
        """
        self.check(records)
        answered = [self._all(record) for record in records if record.prediction.strip()]
        judged = super().score(answered) if answered else Scores({}, [])
        by_id = {sample["id"]: sample for sample in judged.samples}
        silent = {"verdict": None, "score": 0.0}
        samples = [by_id.get(r.id, {"id": r.id, "prediction": r.prediction, **silent}) for r in records]
        kept = [(r, s["score"]) for r, s in zip(records, samples, strict=True) if s["score"] is not None]
        grades = [grade for _, grade in kept]
        groups = self.by(
            [record for record, _ in kept],
            self.parts,
            lambda places: {"correctness": self.mean([grades[place] for place in places])},
        )
        notes = list(judged.notes)
        if len(answered) < len(records):
            notes.append(f"{len(records) - len(answered)} questions have no answer and count as 0 %")
        return Scores({"correctness": self.mean(grades)}, samples, groups, notes, judged.tools)

    def _all(self, record: Record) -> Record:
        """A record whose answers are all that count."""
        extra = record.reference.get("extra_answers") or []
        answers = [*answers_of(record), *(extra if isinstance(extra, list) else [extra])]
        return Record(record.id, record.prediction, {**record.reference, "answers": answers}, record.where)

    def _grade(self, verdict: str) -> float:
        alone, found = ALONE.fullmatch(verdict), MARK.search(verdict)
        if not alone and not found:
            raise NoVerdict(f"its verdict names no mark: {verdict[:80]!r}")
        mark = int((alone or found).group(1))  # type: ignore[union-attr]
        return float(min(max(mark, 1), 5))
