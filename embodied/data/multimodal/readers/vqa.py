"""VQAv2, OK-VQA and others in the official VQA format: a file of questions and a file of annotations.

Format: https://visualqa.org/download.html (Goyal et al. 2017; Marino et al. 2019).
"""

from __future__ import annotations

from pathlib import Path

from embodied.data.multimodal.faults import OnError
from embodied.data.multimodal.readers.base import Look, mapping_of, meta_of, most_common, within
from embodied.data.multimodal.readers.fields import Fields, Prompt
from embodied.data.multimodal.readers.questions import QuestionReader
from embodied.data.multimodal.readers.rows import Rows
from embodied.data.multimodal.sample import BrokenSample, Sample
from embodied.files import read_json


class VQA(QuestionReader):
    """`{"questions": [{"question_id", "image_id", "question"}]}` and `{"annotations": [{"question_id", "answers"}]}`.

    The answer to learn is `multiple_choice_answer` (the one most people gave); `meta` has the answers of all ten.

    Args:
        questions: the questions' file.
        annotations: the annotations' file; None for a test split, whose samples then end with the question.
        images: folder of the pictures.
        image_name: a picture's name, from `{id}` (12 digits) and `{split}` (the questions' `data_subtype`, such as
            `val2014`; `test2015` for test-dev).
        prompt: what is asked, with `{question}`.
        name, on_error, look: see `Reader`.

    Raises:
        ValueError: a file is missing or something else.
    """

    def __init__(
        self,
        questions: str | Path,
        images: str | Path,
        annotations: str | Path | None = None,
        image_name: str = "COCO_{split}_{id}.jpg",
        prompt: str = "{question}",
        name: str = "vqav2",
        on_error: OnError = "raise",
        look: Look = "nothing",
    ) -> None:
        asked = mapping_of(read_json(questions), questions, "a file of VQA questions", "questions")
        answered = None
        if annotations is not None:
            content = mapping_of(read_json(annotations), annotations, "a file of VQA annotations", "annotations")
            answered = {_id(record): record for record in content["annotations"]}
        rows = Rows({"asked": one, "told": answered and answered.get(_id(one))} for one in asked["questions"])
        super().__init__(name, questions, rows, images, prompt, on_error, look)
        self.annotated = None if annotations is None else str(annotations)
        self.split = str(asked.get("data_subtype", "")).replace("test-dev", "test")
        self.image_name = Prompt(image_name, ("id", "split"), "image_name")

    def sample(self, record: Fields) -> Sample:
        asked = Fields(record.get("asked"), record.number)
        name = asked.label("question_id", str(record.number))
        try:
            number = asked.whole("image_id")
            picture = within(self.folder, self.image_name.fill(id=f"{number:012d}", split=self.split))
            meta = {"question_id": asked.get("question_id"), "image_id": number}
            answer = None
            if self.annotated is not None:
                if record.get("told") is None:
                    raise BrokenSample("empty answer", f"{self.annotated} has no annotation of it")
                told = Fields(record.get("told"))
                answers = [one.text("answer") for one in told.records("answers")]
                answer = told.text("multiple_choice_answer", "") or most_common(answers)
                meta |= {"answers": answers} | meta_of(
                    question_type=told.get("question_type"), answer_type=told.get("answer_type")
                )
            return self.asked(name, [picture], answer, meta, question=asked.text("question"))
        except BrokenSample as fault:
            raise fault.at(sample=name) from None


def _id(record: object) -> object:
    found = record.get("question_id") if isinstance(record, dict) else None
    return found if isinstance(found, int | str) else None
