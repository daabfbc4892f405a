"""AI2D: questions about school diagrams (Kembhavi et al. 2016), one file of questions per diagram."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embodied.data.multimodal.faults import OnError
from embodied.data.multimodal.readers.base import Look, mapping_of, meta_of, within
from embodied.data.multimodal.readers.fields import Fields
from embodied.data.multimodal.readers.questions import AnswerBy, ChoiceReader
from embodied.data.multimodal.readers.rows import Rows
from embodied.data.multimodal.sample import BrokenSample, Sample
from embodied.files import read_json


class AI2D(ChoiceReader):
    """`questions/<image>.json`: `{"imageName", "questions": {text: {"answerTexts", "correctAnswer", "questionId"}}}`.

    Where `abcLabel` is set, the options are labels within the diagram; the official evaluation shows the diagram with
    its letters drawn in (`abc_images`), which is a folder of its own.

    Args:
        folder: the dataset, with `questions`, `images`, and for labelled questions `abc_images` if it is there.
        test_ids: `ai2d_test_ids.csv`, one name of a picture without suffix per line.
        test: with `test_ids`, the test part; else the rest.
        prompt: what is asked, with `{question}` and `{options}`.
        answer_by: whether the answer is the option's `letter` or its `text`.
        name, on_error, look: see `Reader`.

    Raises:
        ValueError: the folder or a file is missing or something else.
    """

    def __init__(
        self,
        folder: str | Path,
        test_ids: str | Path | None = None,
        test: bool = False,
        prompt: str = "{question}\n{options}",
        answer_by: AnswerBy = "letter",
        name: str = "ai2d",
        on_error: OnError = "raise",
        look: Look = "nothing",
    ) -> None:
        if test and test_ids is None:
            raise ValueError("which diagrams are the test part is told by test_ids (ai2d_test_ids.csv): give its path")
        files = sorted(Path(folder, "questions").glob("*.json"), key=_place)
        if test_ids is not None:
            with Path(test_ids).open(newline="", encoding="utf-8") as lines:
                kept = {row[0].strip() for row in csv.reader(lines) if row}
            files = [file for file in files if (_stem(file) in kept) == test]
        if not files:
            raise ValueError(f"{folder} has no questions/<image>.json to read: is it AI2D's own folder?")
        rows = Rows(entry for file in files for entry in _entries(file))
        super().__init__(name, Path(folder, "questions"), rows, Path(folder), prompt, answer_by, on_error, look)
        self.lettered = (Path(folder) / "abc_images").is_dir()

    def sample(self, record: Fields) -> Sample:
        asked = Fields(record.get("asked"), record.number)
        name = asked.label("questionId", f"{record.get('image')}-{record.number}")
        try:
            labelled = bool(asked.get("abcLabel"))
            home = "abc_images" if labelled and self.lettered else "images"
            picture = within(self.folder, f"{home}/{record.text('image')}")
            right = asked.whole("correctAnswer") if "correctAnswer" in asked else None
            meta = {"question_id": name} | meta_of(image_id=record.get("image"))
            meta["labelled"] = labelled
            return self.chosen(
                name, [picture], asked.texts("answerTexts"), right, meta, question=record.text("question")
            )
        except BrokenSample as fault:
            raise fault.at(record.text("file", ""), name) from None


def _entries(file: Path) -> Iterator[dict[str, Any]]:
    content = mapping_of(read_json(file), file, "a file of AI2D questions", "imageName", "questions")
    questions = mapping_of(content["questions"], file, "a file of AI2D questions")
    for question, asked in questions.items():
        yield {"image": content["imageName"], "question": question, "asked": asked, "file": str(file)}


def _stem(file: Path) -> str:
    return file.name.split(".")[0]


def _place(file: Path) -> tuple[int, str]:
    stem = _stem(file)
    return (int(stem) if stem.isdigit() else 2**62, stem)
