"""A sample from a row with columns of the user's own: a conversation in a common form, a question, or a caption.

| a row has | it becomes |
|---|---|
| `messages`: `[{"role", "content"}]` | that conversation; `<image>` or an image part stands for the next picture |
| `conversations`: `[{"from", "value"}]` | that of LLaVA |
| `texts`: `[{"user", "assistant"}]` | that of The Cauldron: the pictures, then the turns |
| `question`, and `answer` or `answers`, and maybe `options` | a question about the pictures |
| `caption` | the pictures, and what they are described by |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embodied.building import nearest
from embodied.data.multimodal.media import embedded
from embodied.data.multimodal.readers.base import lettered, most_common, within
from embodied.data.multimodal.readers.fields import Fields, Prompt
from embodied.data.multimodal.readers.llava import spoken, with_marks
from embodied.data.multimodal.sample import BrokenSample, Sample, image, message

FORMS = ("messages", "conversations", "texts", "question", "caption")
KEYS = (*FORMS, "images", "answer", "answers", "options", "id", "split", "question_type")
"""Our names of columns; a dataset that calls one otherwise says so (`{"question": "query"}`)."""


class Composer:
    """Makes samples of rows.

    Args:
        keys: by our name, the dataset's own name of a column, where it is another.
        prompt: what is asked where a row has a question: `{question}`, and `{options}` by letter.
        caption_prompt: what is asked where a row has a caption; with an empty one, the picture alone is.
        meta: further columns to keep in `meta`.

    Raises:
        ValueError: a name that we don't know, or a prompt with an unknown place.
    """

    def __init__(
        self,
        keys: Mapping[str, str] | None = None,
        prompt: str = "{question}\n{options}",
        caption_prompt: str = "Describe the image in one sentence.",
        meta: Sequence[str] = (),
    ) -> None:
        for key in keys or {}:
            if key not in KEYS:
                raise ValueError(f"keys has '{key}', which no row is read by{nearest(key, KEYS)}")
        self.keys = {key: key for key in KEYS} | dict(keys or {})
        self.prompt, self.caption_prompt = Prompt(prompt, ("question", "options")), caption_prompt
        self.meta = tuple(meta)

    def sample(self, record: Fields, name: str, source: str, pictures: Sequence[str]) -> Sample:
        """The sample of a row with these pictures.

        Raises:
            BrokenSample: none of the forms fits, or its parts don't.
        """
        row = Fields({ours: record.get(theirs) for ours, theirs in self.keys.items()}, record.number)
        form = next((form for form in FORMS if form in row), None)
        if form is None:
            wanted = ", ".join(self.keys[form] for form in FORMS)
            raise BrokenSample("wrong field", f"it has none of {wanted}: say by keys what its columns are", sample=name)
        shown = [image(picture) for picture in pictures]
        meta = {key: record.get(key) for key in self.meta if key in record}
        meta |= {key: row.get(key) for key in ("split", "question_type") if key in row}
        if form == "messages":
            messages = _chat(row, shown)
        elif form == "conversations":
            messages = spoken(row, shown, [], first=False)
        elif form == "texts":
            messages = []
            for turn in row.records("texts"):
                messages += [message("user", turn.text("user")), message("assistant", turn.text("assistant"))]
            messages[0]["content"][:0] = shown
        elif form == "question":
            messages, told = self._question(row, shown)
            meta = told | meta
        else:
            captions = row.texts("caption") if isinstance(row.get("caption"), list) else [row.text("caption")]
            if not captions:
                raise BrokenSample("empty answer", f"'{self.keys['caption']}' is empty", sample=name)
            asked = [*shown, self.caption_prompt] if self.caption_prompt else shown
            messages, meta = [message("user", *asked), message("assistant", captions[0])], {"captions": captions} | meta
        return Sample(name, messages, source, meta)

    def _question(self, row: Fields, shown: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        question, options = row.text("question"), row.texts("options", [])
        meta: dict[str, Any] = {"question": question}
        answer: str | None = None
        if options:
            meta["options"] = options
            if "answer" in row:
                place = _place(row.get("answer"), options)
                meta["answer"], answer = place, chr(ord("A") + place)
        elif "answers" in row or "answer" in row:
            many = row.texts("answers") if "answers" in row else [row.label("answer")]
            meta["answers"], answer = many, most_common(many)
        asked = self.prompt.fill(question=question, options=lettered(options))
        return [message("user", *shown, asked)] + ([] if answer is None else [message("assistant", answer)]), meta


def references(found: Any, folder: Path | None) -> list[str]:
    """The pictures that a column holds: one or a list of paths, bytes, or `{"bytes", "path"}` of `datasets`.

    Raises:
        BrokenSample: it holds something else.
    """
    several = found if isinstance(found, list) else [found]
    return [_reference(one, folder) for one in several if one is not None]


def _reference(found: Any, folder: Path | None) -> str:
    if isinstance(found, bytes):
        return embedded(found)
    if isinstance(found, Mapping) and set(found) <= {"bytes", "path"}:
        if found.get("bytes"):
            return embedded(found["bytes"])
        found = found.get("path")
    if isinstance(found, str) and found:
        return found if folder is None else within(folder, found)
    raise BrokenSample("missing image", f"a picture is a path or bytes, got {found!r:.60}")


def _chat(row: Fields, shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    said = row.records("messages")
    if all(isinstance(turn.get("content"), str) for turn in said):
        marked = [(turn.text("role"), turn.text("content")) for turn in said]
        if shown and not any("<image>" in text for _, text in marked):  # pictures that nothing marks come first
            first = next((i for i, (role, _) in enumerate(marked) if role == "user"), 0)
            marked[first] = (marked[first][0], "<image>" * len(shown) + marked[first][1])
        return with_marks(marked, shown)
    rest, messages = list(shown), []
    for turn in said:
        content: Any = turn.get("content")
        parts: list[Any] = []
        for part in [content] if isinstance(content, str) else turn.records("content"):
            if isinstance(part, str):
                parts.append(part)
            elif part.get("type") == "image":
                if not rest:
                    raise BrokenSample("image count mismatch", f"its messages show more than its {len(shown)} images")
                parts.append(rest.pop(0))
            else:
                parts.append({"type": part.text("type"), part.text("type"): part.get(part.text("type"))})
        messages.append(message(turn.text("role"), *parts))
    if rest:
        raise BrokenSample("image count mismatch", f"its messages show {len(shown) - len(rest)} of {len(shown)} images")
    return messages


def _place(answer: Any, options: Sequence[str]) -> int:
    """The place of the right option, told by number, by letter or by its text."""
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options):
        return answer
    if isinstance(answer, str):
        if answer in options:
            return options.index(answer)
        letter = answer.strip().strip("().").upper()
        if len(letter) == 1 and 0 <= ord(letter) - ord("A") < len(options):
            return ord(letter) - ord("A")
    raise BrokenSample("wrong field", f"the answer {answer!r:.40} is none of its {len(options)} options")
