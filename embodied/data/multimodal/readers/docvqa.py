"""DocVQA: questions about scanned documents (Mathew et al. 2021, {train,val,test}_v1.0.json)."""

from __future__ import annotations

from pathlib import Path

from embodied.data.multimodal.faults import OnError
from embodied.data.multimodal.readers.base import Look, mapping_of, meta_of, most_common, within
from embodied.data.multimodal.readers.fields import Fields
from embodied.data.multimodal.readers.questions import QuestionReader, named
from embodied.data.multimodal.readers.rows import Rows
from embodied.data.multimodal.sample import BrokenSample, Sample
from embodied.files import read_json


class DocVQA(QuestionReader):
    """`{"data": [{"questionId", "question", "image": "documents/x.png", "answers", "question_types", "data_split"}]}`.

    InfographicVQA's files have the same form (its `image_local_name` is taken where there is no `image`).
    The answer to learn is the first; all of them are accepted. A test split has none.

    Args:
        file: the questions.
        images: folder that the pictures' paths start from.
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
        name: str = "docvqa",
        on_error: OnError = "raise",
        look: Look = "nothing",
    ) -> None:
        rows = Rows(mapping_of(read_json(file), file, "a file of DocVQA questions", "data")["data"])
        super().__init__(name, file, rows, images, prompt, on_error, look)

    def sample(self, record: Fields) -> Sample:
        name = named(record, "questionId")
        try:
            answers = record.texts("answers", [])
            kinds = record.texts("question_types", [])
            meta = {"question_id": record.get("questionId")}
            meta |= meta_of(answers=answers, question_type=", ".join(kinds), split=record.get("data_split"))
            local = "image" not in record and "image_local_name" in record
            picture = within(self.folder, record.text("image_local_name" if local else "image"))
            answer = most_common(answers[:1]) if "answers" in record else None
            return self.asked(name, [picture], answer, meta, question=record.text("question"))
        except BrokenSample as fault:
            raise fault.at(sample=name) from None
