"""What readers of questions about pictures share: a prompt to put the question into, and an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from embodied.data.multimodal.faults import OnError
from embodied.data.multimodal.readers.base import Look, TableReader, existing, lettered
from embodied.data.multimodal.readers.fields import Fields, Prompt
from embodied.data.multimodal.sample import BrokenSample, Sample, image, message

AnswerBy = Literal["letter", "text"]


class QuestionReader(TableReader):
    """A question about a picture, and its answer where the file has one.

    A subclass implements `sample` by `asked`.

    Args:
        name, file, rows, on_error, look: see `TableReader`.
        images: folder of the pictures.
        prompt: what is asked, with the places in `places`.
    """

    places: tuple[str, ...] = ("question",)

    def __init__(
        self,
        name: str,
        file: str | Path,
        rows: Sequence[Any],
        images: str | Path,
        prompt: str,
        on_error: OnError,
        look: Look,
    ) -> None:
        super().__init__(name, file, rows, on_error, look)
        self.folder, self.prompt = existing(images), Prompt(prompt, self.places)

    def asked(
        self, id: str, pictures: Sequence[str], answer: str | None, meta: Mapping[str, Any], **values: str
    ) -> Sample:
        """The sample: pictures, then the prompt with these values in its places, then the answer unless it is None.

        Raises:
            BrokenSample: the answer or the question is empty.
        """
        if not values["question"].strip():
            raise BrokenSample("empty message", "its question is empty", sample=id)
        messages = [message("user", *map(image, pictures), self.prompt.fill(**values))]
        if answer is not None:
            messages.append(message("assistant", answer))
        return Sample(id, messages, self.name, {"question": values["question"], **meta})


class ChoiceReader(QuestionReader):
    """A question with options to choose from.

    Args:
        answer_by: what the answer is: the option's `letter`, or its `text`.
        others: see `QuestionReader`.

    Raises:
        ValueError: an unknown `answer_by`.
    """

    places: tuple[str, ...] = ("question", "options")

    def __init__(
        self,
        name: str,
        file: str | Path,
        rows: Sequence[Any],
        images: str | Path,
        prompt: str,
        answer_by: AnswerBy,
        on_error: OnError,
        look: Look,
    ) -> None:
        super().__init__(name, file, rows, images, prompt, on_error, look)
        if answer_by not in get_args(AnswerBy):
            raise ValueError(f"answer_by is letter or text, got {answer_by!r}")
        self.answer_by = answer_by

    def chosen(
        self,
        id: str,
        pictures: Sequence[str],
        options: Sequence[str],
        right: int | None,
        meta: Mapping[str, Any],
        **values: str,
    ) -> Sample:
        """The sample; `right` is the place of the right option from 0, None where it is not told.

        Raises:
            BrokenSample: there are no options, or `right` is none of them.
        """
        if not options:
            raise BrokenSample("wrong field", "it has no options to choose from", sample=id)
        answer = None
        if right is not None:
            if not 0 <= right < len(options):
                raise BrokenSample(
                    "wrong field", f"its answer is option {right}, of options 0 to {len(options) - 1}", sample=id
                )
            answer = chr(ord("A") + right) if self.answer_by == "letter" else options[right]
        told = {"options": list(options)} | ({} if right is None else {"answer": right})
        return self.asked(id, pictures, answer, {**told, **meta}, options=lettered(options), **values)


def named(record: Fields, key: str) -> str:
    """The id of a record, from one of its fields; its number where that is missing, for a message to name it by."""
    return record.label(key, str(record.number))
