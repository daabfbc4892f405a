"""ChartQA: questions about charts (Masry et al. 2022, {train,val,test}_{human,augmented}.json)."""

from __future__ import annotations

from pathlib import Path

from embodied.data.multimodal.faults import OnError
from embodied.data.multimodal.readers.base import Look, meta_of, within
from embodied.data.multimodal.readers.fields import Fields
from embodied.data.multimodal.readers.llava import listed
from embodied.data.multimodal.readers.questions import QuestionReader
from embodied.data.multimodal.readers.rows import Rows
from embodied.data.multimodal.sample import BrokenSample, Sample


class ChartQA(QuestionReader):
    """`[{"imgname", "query", "label"}]`.

    Records have no id: they are named by their number. Official figures are also given for questions that people wrote
    and those that were generated, which is `meta["question_type"]`, from the file's name.

    Args:
        file: the questions.
        images: folder of the pictures (`png`).
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
        name: str = "chartqa",
        on_error: OnError = "raise",
        look: Look = "nothing",
    ) -> None:
        super().__init__(name, file, Rows(listed(file)), images, prompt, on_error, look)
        stem = Path(file).stem
        self.kind = next((kind for kind in ("human", "augmented") if kind in stem), "")
        self.prefix = f"{self.kind}-" if self.kind else ""

    def sample(self, record: Fields) -> Sample:
        name = f"{self.prefix}{record.number}"
        try:
            answer = record.label("label") if "label" in record else None
            meta = meta_of(answers=[answer] if answer is not None else [], question_type=self.kind)
            picture = within(self.folder, record.text("imgname"))
            return self.asked(name, [picture], answer, meta, question=record.text("query"))
        except BrokenSample as fault:
            raise fault.at(sample=name) from None
