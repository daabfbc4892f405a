"""TextVQA: questions about text in pictures (Singh et al. 2019, TextVQA_0.5.1_*.json)."""

from __future__ import annotations

from pathlib import Path

from embodied.data.multimodal.faults import OnError
from embodied.data.multimodal.readers.base import Look, mapping_of, meta_of, most_common, within
from embodied.data.multimodal.readers.fields import Fields
from embodied.data.multimodal.readers.questions import QuestionReader, named
from embodied.data.multimodal.readers.rows import Rows
from embodied.data.multimodal.sample import BrokenSample, Sample
from embodied.files import read_json


class TextVQA(QuestionReader):
    """`{"data": [{"question_id", "image_id", "question", "answers", "image_width", "image_height", "set_name"}]}`.

    The answer to learn is the one most people gave; a test split has none.

    Args:
        file: the questions.
        images: folder of the pictures, `<image_id>.jpg`.
        prompt: what is asked, with `{question}`.
        name, on_error, look: see `Reader`.

    Raises:
        ValueError: the file is missing or something else.
    """

    def __init__(
        self,
        file: str | Path,
        images: str | Path,
        prompt: str = "{question}",
        name: str = "textvqa",
        on_error: OnError = "raise",
        look: Look = "nothing",
    ) -> None:
        rows = Rows(mapping_of(read_json(file), file, "a file of TextVQA questions", "data")["data"])
        super().__init__(name, file, rows, images, prompt, on_error, look)

    def sample(self, record: Fields) -> Sample:
        name = named(record, "question_id")
        try:
            answers = record.texts("answers", [])
            meta = {"question_id": record.get("question_id"), "image_id": record.label("image_id")}
            meta |= meta_of(answers=answers, split=record.get("set_name"))
            meta |= meta_of(width=record.get("image_width"), height=record.get("image_height"))
            picture = within(self.folder, f"{record.label('image_id')}.jpg")
            answer = most_common(answers) if "answers" in record else None
            return self.asked(name, [picture], answer, meta, question=record.text("question"))
        except BrokenSample as fault:
            raise fault.at(sample=name) from None
