"""Asking a model all questions of a task, and scoring what it says."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from embodied.building import build
from embodied.data.multimodal.readers.base import Reader
from embodied.evaluation.scorers.base import Record, Resampling, Scorer, Scores
from embodied.evaluation.scorers.judges import Judge
from embodied.evaluation.scorers.result import REPORT, stated, write_scores
from embodied.evaluation.tasks.answers import Answers
from embodied.evaluation.tasks.base import Conversation, First, Generation, Responder, Task
from embodied.evaluation.tasks.loading import load_responder
from embodied.files import only_one
from embodied.progress import Progress


def run_task(
    task: Task, responder: Responder, batch_size: int = 8, answers: Answers | None = None, progress: bool = False
) -> Scores:
    """Ask everything, and score it. An answer without words is an answer, and wrong; the notes count them.

    Args:
        batch_size: conversations at once; what is answered does not depend on it.
        answers: where answers are noted, and what was answered already.
        progress: whether to show a line on standard error.

    Raises:
        ValueError: the responder gives another number of answers than it was asked, or something else than text.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is 1 or more, got batch_size={batch_size}")
    questions = list(task.questions())
    given = dict(answers.given) if answers else {}
    todo = [question for question in questions if question.id not in given]
    line = (
        Progress(len(questions), "questions", done=len(questions) - len(todo), stream=sys.stderr) if progress else None
    )

    def ask(what: Mapping[str, Conversation], settings: Generation) -> None:
        said = responder.respond(list(what.values()), **settings.to_dict())
        if len(said) != len(what) or not all(isinstance(text, str) for text in said):
            raise ValueError(f"the model was asked {len(what)} questions and gave {len(said)} answers that are text")
        given.update(zip(what, said, strict=True))
        if answers:
            answers.add(list(what), said)

    for start in range(0, len(todo), batch_size):
        asked = {question.id: question.conversation for question in todo[start : start + batch_size]}
        if task.first is not None:
            before = {name: task.first.asked(conversation) for name, conversation in asked.items()}
            same = {name: _digest(conversation) for name, conversation in before.items()}
            new = {same[name]: one for name, one in before.items() if same[name] not in given}  # once a picture
            if new:
                ask(new, replace(task.generation, max_new_tokens=task.first.max_new_tokens))
            asked = {name: task.first.answered(one, given[same[name]]) for name, one in asked.items()}
        ask(asked, task.generation)
        if line:
            line.advance(len(asked), "")
    records: list[Record] = [question.record(task.answer(given[question.id])) for question in questions]
    scores = task.scorer.score(records)
    silent = sum(not record.prediction.strip() for record in records)
    if silent:
        scores.notes.append(f"{silent} answers were empty")
    return scores


def _digest(conversation: Conversation) -> str:
    """A name for what is asked first, beside the ids of questions."""
    return f"first {hashlib.sha256(json.dumps(conversation).encode()).hexdigest()}"


def evaluate(plain: Mapping[str, Any]) -> dict[str, Any]:
    """What `embodied-eval task=...` does, from its resolved config: the result on disk, and what a sweep tabulates."""
    described = plain["task"]
    scorer: Scorer = build(described["scoring"]["scorer"], (Scorer, Judge))
    scorer.resampling = Resampling(plain["resamples"], described["generation"]["seed"])
    samples: Reader = build(described["samples"], (Reader,))
    task = Task(
        described["name"],
        samples,
        scorer,
        described["prompt"],
        Generation(**described["generation"]),
        described["system"],
        described["circular"],
        described["limit"],
        First(**described["first"]) if described["first"]["prompt"] else None,
        described["answer_after"],
    )
    out = Path(plain["out"])
    responder = _responder(plain)
    with only_one(out, "evaluation"):
        model = responder.describe()
        # how answers are scored may change between two runs of the command; what is asked of whom may not
        asked = {key: value for key, value in described.items() if key not in ("scoring", "answer_after")}
        answers = Answers(out, {"model": model, "task": asked}, plain["resume"])
        scores = run_task(task, responder, plain["batch_size"], answers, progress=True)
        skipped = samples.faults
        write_scores(
            out,
            scores,
            name=task.name,
            config=plain,
            skipped=[example for examples in skipped.examples.values() for example in examples],
            skipped_count=skipped.total,
            prompt="\n\n".join(text for text in (task.system, task.first and task.first.prompt, task.prompt) if text),
            generation=task.generation.to_dict(),
            model=model,
        )
        answers.end()
    for name, metric in scores.metrics.items():
        print(f"{plain['policy']} on {task.name} {name}: {stated(metric)}, n = {metric.n}")
    for remark in scores.notes:
        print(f"Note: {remark}.")
    if skipped.total:
        print(skipped)
    print(out / REPORT)
    _, head = scores.headline
    figures = {name: metric.value for name, metric in scores.metrics.items()}
    return {"score": head.value, "low": head.low, "high": head.high, "n": head.n, **figures}


def _responder(plain: Mapping[str, Any]) -> Responder:
    if plain["responder"] is None:
        return load_responder(str(plain["policy"]), plain["device"])
    made = build(plain["responder"])
    if not isinstance(made, Responder):
        raise ValueError(f"responder: {type(made).__name__} has not the methods of a Responder")
    return made
