"""Our own format: one sample per line, as `Sample.to_dict` writes it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from embodied.data.multimodal.faults import OnError
from embodied.data.multimodal.media import DATA, INSIDE
from embodied.data.multimodal.readers.base import Look, TableReader
from embodied.data.multimodal.readers.fields import Fields
from embodied.data.multimodal.readers.rows import JsonLines
from embodied.data.multimodal.sample import Sample
from embodied.files import atomic_file


class NothingToWrite(ValueError):
    """There are no samples."""


class Chat(TableReader):
    """Chat JSON lines: `{"id": ..., "messages": [...], "source": ..., "meta": {...}}`.

    Lines stay in their file until they are asked for. A line without an id is named by its number.

    Args:
        file: the JSON lines file.
        images: folder that relative paths of pictures and films start from; the file's own unless given.
        name: of samples that tell no source; the file's name unless given.
        on_error, look: see `Reader`.
    """

    def __init__(
        self,
        file: str | Path,
        images: str | Path | None = None,
        name: str = "",
        on_error: OnError = "raise",
        look: Look = "nothing",
    ) -> None:
        super().__init__(name or Path(file).stem, file, JsonLines(file), on_error, look)
        self.folder = Path(file).parent if images is None else Path(images)

    def sample(self, record: Fields) -> Sample:
        row = dict(record.record)
        row["id"] = str(row.get("id", record.number))
        row["source"] = row.get("source") or self.name
        sample = Sample.from_dict(row)
        for part in sample.parts():
            if part["type"] != "text":
                part[part["type"]] = resolved(part[part["type"]], self.folder)
        return sample


def resolved(reference: str, folder: Path) -> str:
    """A reference that is good wherever the process stands, from one that starts in `folder`."""
    return reference if DATA.match(reference) else str(folder / reference)


def relative(reference: str, folder: Path) -> str:
    """A reference that starts in `folder` where its file lies under it, and at the root where it does not."""
    if DATA.match(reference):
        return reference
    place = INSIDE.match(reference)
    path = Path(os.path.abspath(place["file"] if place else reference))  # noqa: PTH100 - links stay as they are
    rest = reference[len(place["file"]) :] if place else ""
    home = Path(os.path.abspath(folder))  # noqa: PTH100
    return (path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)) + rest


def write_chat(file: str | Path, samples: Iterable[Sample]) -> int:
    """Write samples as `Chat` reads them, one at a time; the file appears when all are written. Returns how many.

    Pictures stay where they are: their paths are written relative to the file where they lie beside or below it.

    Raises:
        NothingToWrite: there are no samples.
        BrokenSample: one cannot be written as JSON.
    """
    file, count = Path(file), 0
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as temporary:
        with temporary.open("w", encoding="utf-8") as out:
            for sample in samples:
                out.write(json.dumps(line_of(sample, file.parent), ensure_ascii=False) + "\n")
                count += 1
        if not count:
            raise NothingToWrite(f"{file} would be empty: there are no samples to write")
    return count


def line_of(sample: Sample, folder: Path) -> dict[str, Any]:
    """What `write_chat` writes of a sample."""
    record = sample.to_dict()
    for message in record["messages"]:
        for part in message["content"]:
            if part["type"] != "text":
                part[part["type"]] = relative(part[part["type"]], folder)
    return record
