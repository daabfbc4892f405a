"""LLaVA's JSON: conversations between `human` and `gpt` in which `<image>` marks where a picture is.

Field names and rules of `llava/train/train.py` of LLaVA 1.5 (Liu et al. 2023).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embodied.data.multimodal.faults import OnError
from embodied.data.multimodal.readers.base import Look, TableReader, existing, within
from embodied.data.multimodal.readers.fields import Fields
from embodied.data.multimodal.readers.rows import JsonLines, Rows
from embodied.data.multimodal.sample import BrokenSample, Sample, image, message, video
from embodied.files import read_json

SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
MARK = re.compile(r"\n?(<image>|<video>)\n?")


class LLaVA(TableReader):
    """LLaVA's `[{"id", "image", "conversations": [{"from", "value"}]}]`, as one JSON file or as JSON lines.

    `image` is a path, a list of paths, or missing (a conversation of text alone); `video` likewise. As in LLaVA, what
    `gpt` says before the first `human` is left out. Ids repeat in the official files, so the record's number is added.

    Args:
        file: the conversations, `.json` or `.jsonl`.
        images: folder that paths of pictures start from.
        images_first: put the pictures of a message before its text, as LLaVA 1.5 does; else they stay where their marks
            are, as in LLaVA-NeXT-Interleave.
        name, on_error, look: see `Reader`.

    Raises:
        ValueError: the file or the folder is missing, or holds something else.
    """

    def __init__(
        self,
        file: str | Path,
        images: str | Path,
        images_first: bool = True,
        name: str = "llava",
        on_error: OnError = "raise",
        look: Look = "nothing",
    ) -> None:
        super().__init__(name, file, conversations_in(file), on_error, look)
        self.folder, self.images_first = existing(images), images_first

    def sample(self, record: Fields) -> Sample:
        name = f"{record.label('id', '')}#{record.number}" if "id" in record else str(record.number)
        try:
            pictures = [image(within(self.folder, path)) for path in paths_of(record, "image")]
            films = [video(within(self.folder, path)) for path in paths_of(record, "video")]
            messages = spoken(record, pictures, films, self.images_first)
        except BrokenSample as fault:
            raise fault.at(sample=name) from None
        return Sample(name, messages, self.name, {"image_id": record.label("id")} if "id" in record else {})


def conversations_in(file: str | Path) -> Sequence[Any]:
    """The records of a JSON file that is a list, or of a JSON lines file.

    Raises:
        ValueError: it is missing or something else.
    """
    if Path(file).suffix == ".jsonl":
        return JsonLines(file)
    content = listed(file)
    return Rows(content)


def listed(file: str | Path) -> list[Any]:
    """A JSON file that is a list of records.

    Raises:
        ValueError: it is missing or something else.
    """
    content = read_json(file)
    if not isinstance(content, list) or not content:
        raise ValueError(f"{file} should be a list of records, and has {'none' if content == [] else 'something else'}")
    return content


def paths_of(record: Fields, key: str) -> list[str]:
    """The paths under a key: one, several, or none."""
    found = record.get(key)
    if found in (None, "", []):
        return []
    paths = [found] if isinstance(found, str) else found
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise BrokenSample("wrong field", f"'{key}' is a path or a list of paths, got {found!r:.60}")
    return paths


def spoken(record: Fields, pictures: Sequence[dict], films: Sequence[dict], first: bool) -> list[dict[str, Any]]:
    """The messages of `conversations`, with its pictures at their marks.

    Args:
        record: with `conversations`.
        pictures, films: content parts, in the order of their marks.
        first: put the pictures of a message before its text.

    Raises:
        BrokenSample: an unknown speaker, or not one mark for each picture.
    """
    said = []
    for turn in record.records("conversations"):
        speaker = turn.text("from")
        if speaker not in SPEAKERS:
            raise BrokenSample(
                "unknown role", f"turn {turn.number} is from '{speaker}'; there is human, gpt and system"
            )
        said.append((SPEAKERS[speaker], turn.text("value")))
    while said and said[0][0] == "assistant":
        said = said[1:]
    return with_marks(said, pictures, films, first)


def with_marks(
    said: Sequence[tuple[str, str]], pictures: Sequence[dict], films: Sequence[dict] = (), first: bool = False
) -> list[dict[str, Any]]:
    """Messages of (role, text) in which `<image>` and `<video>` mark where the next picture or film is.

    Raises:
        BrokenSample: there is not one mark for each picture and film.
    """
    rest: dict[str, list[Any]] = {"<image>": list(pictures), "<video>": list(films)}
    for mark, there in rest.items():
        marks = sum(text.count(mark) for _, text in said)
        if marks != len(there):
            raise BrokenSample(
                "image count mismatch", f"it has {marks} {mark} marks for {len(there)} {mark[1:-1]}s: they should agree"
            )
    messages = []
    for role, text in said:
        pieces = MARK.split(text)  # text, mark, text, mark, ... text
        parts: list[Any] = [rest[piece].pop(0) if i % 2 else piece for i, piece in enumerate(pieces)]
        parts = [part for part in parts if part != ""]
        if first:
            text = "\n".join(part for part in parts if isinstance(part, str)).strip()
            parts = [part for part in parts if not isinstance(part, str)] + ([text] if text else [])
        messages.append(message(role, *parts))
    return messages
