"""ScienceQA: school questions with options, half of them with a picture (Lu et al. 2022, problems.json)."""

from __future__ import annotations

from pathlib import Path

from embodied.building import nearest
from embodied.data.multimodal.faults import OnError
from embodied.data.multimodal.readers.base import Look, mapping_of, meta_of, within
from embodied.data.multimodal.readers.fields import Fields
from embodied.data.multimodal.readers.questions import AnswerBy, ChoiceReader
from embodied.data.multimodal.readers.rows import Rows
from embodied.data.multimodal.sample import BrokenSample, Sample
from embodied.files import read_json


class ScienceQA(ChoiceReader):
    """`{"<id>": {"question", "choices", "answer", "hint", "image", "split", "subject", "topic", "lecture", ...}}`.

    Args:
        file: `problems.json`.
        images: folder of the pictures, `<split>/<id>/image.png`.
        split: `train`, `val`, `test`, or one that `splits` has.
        splits: `pid_splits.json`; by each problem's own `split` unless given.
        with_image: only problems that have a picture (the IMG subset).
        prompt: what is asked, with `{question}`, `{options}`, `{hint}` and `{lecture}`.
        answer_by: whether the answer is the option's `letter` or its `text`.
        name, on_error, look: see `Reader`.

    Raises:
        ValueError: a file is missing or something else, or no problem is of the split.
    """

    places = ("question", "options", "hint", "lecture")

    def __init__(
        self,
        file: str | Path,
        images: str | Path,
        split: str = "train",
        splits: str | Path | None = None,
        with_image: bool = False,
        prompt: str = "{hint}\n{question}\n{options}",
        answer_by: AnswerBy = "letter",
        name: str = "scienceqa",
        on_error: OnError = "raise",
        look: Look = "nothing",
    ) -> None:
        problems = mapping_of(read_json(file), file, "ScienceQA's problems.json")
        if splits is not None:
            parts = mapping_of(read_json(splits), splits, "ScienceQA's pid_splits.json")
            if split not in parts:
                raise ValueError(f"{splits} has no split '{split}'{nearest(split, parts)}")
            chosen = [(key, problems.get(key)) for key in parts[split]]
        else:
            chosen = [(k, p) for k, p in problems.items() if isinstance(p, dict) and p.get("split") == split]
        if with_image:
            chosen = [(key, problem) for key, problem in chosen if isinstance(problem, dict) and problem.get("image")]
        if not chosen:
            raise ValueError(f"{file} has no problems of the split '{split}'")
        rows = Rows({"id": key, "problem": problem} for key, problem in chosen)
        super().__init__(name, file, rows, images, prompt, answer_by, on_error, look)

    def sample(self, record: Fields) -> Sample:
        name = record.label("id")
        try:
            asked = Fields(record.get("problem"))
            pictures = []
            if asked.text("image", ""):
                pictures = [within(self.folder, f"{asked.text('split')}/{name}/{asked.text('image')}")]
            meta = {"question_id": name} | meta_of(
                subject=asked.get("subject"),
                category=asked.get("topic"),
                grade=asked.get("grade"),
                split=asked.get("split"),
                solution=asked.get("solution"),
            )
            meta["context"] = "image" if pictures else "text" if asked.text("hint", "") else "none"
            return self.chosen(
                name,
                pictures,
                asked.texts("choices"),
                asked.whole("answer") if "answer" in asked else None,
                meta,
                question=asked.text("question"),
                hint=asked.text("hint", ""),
                lecture=asked.text("lecture", ""),
            )
        except BrokenSample as fault:
            raise fault.at(sample=name) from None
