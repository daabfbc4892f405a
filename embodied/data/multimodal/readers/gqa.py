"""GQA: questions about scene graphs, keyed by their id (Hudson & Manning 2019, questions1.2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embodied.data.multimodal.faults import OnError
from embodied.data.multimodal.readers.base import Look, mapping_of, meta_of, within
from embodied.data.multimodal.readers.fields import Fields
from embodied.data.multimodal.readers.questions import QuestionReader
from embodied.data.multimodal.readers.rows import Rows
from embodied.data.multimodal.sample import BrokenSample, Sample
from embodied.files import read_json


class GQA(QuestionReader):
    """`{"<question id>": {"imageId", "question", "answer", "fullAnswer", "isBalanced", "types", ...}}`.

    Args:
        file: one file of questions, or the folder of several, as the whole training set comes.
        images: folder of the pictures, `<imageId>.jpg`.
        full_answer: learn the whole sentence (`fullAnswer`) instead of the word.
        prompt: what is asked, with `{question}`.
        name, on_error, look: see `Reader`.

    Raises:
        ValueError: a file is missing or something else.
    """

    def __init__(
        self,
        file: str | Path,
        images: str | Path,
        full_answer: bool = False,
        prompt: str = "{question}",
        name: str = "gqa",
        on_error: OnError = "raise",
        look: Look = "nothing",
    ) -> None:
        super().__init__(name, file, Rows(_entries(Path(file))), images, prompt, on_error, look)
        self.full_answer = full_answer

    def sample(self, record: Fields) -> Sample:
        name, asked = record.label("id"), Fields(record.get("question"))
        try:
            answer = None
            meta: dict[str, Any] = {"question_id": name, "image_id": asked.label("imageId")}
            if "answer" in asked:
                answer = asked.text("fullAnswer" if self.full_answer else "answer")
                types = asked.get("types") if isinstance(asked.get("types"), dict) else {}
                meta |= {"answers": [asked.text("answer")], "answer": asked.text("answer")}
                meta |= meta_of(full_answer=asked.text("fullAnswer", ""), question_type=types.get("structural"))
                meta |= meta_of(category=types.get("semantic"), balanced=asked.get("isBalanced"))
            picture = within(self.folder, f"{asked.label('imageId')}.jpg")
            return self.asked(name, [picture], answer, meta, question=asked.text("question"))
        except BrokenSample as fault:
            raise fault.at(sample=name) from None


def _entries(file: Path) -> Iterator[dict[str, Any]]:
    files = sorted(file.glob("*.json")) if file.is_dir() else [file]
    if not files:
        raise ValueError(f"{file} has no .json files of questions")
    for one in files:
        content = mapping_of(read_json(one), one, "a file of GQA questions")
        yield from ({"id": key, "question": record} for key, record in content.items())
