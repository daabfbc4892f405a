"""Finished episodes, noted one by one, so that an interrupted evaluation goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from embodied.evaluation.results import EpisodeRecord
from embodied.files import write_text

FILE = "episodes.partial.jsonl"


class Journal:
    """`<folder>/episodes.partial.jsonl`: what is evaluated, then a line per finished episode.

    Args:
        folder: the result folder.
        identity: what decides an episode's outcome, as JSON.
        resume: whether to go on with a journal that is there; otherwise it is begun anew.

    Attributes:
        records: the episodes that are finished already.
        seconds: how long those took in all.

    Raises:
        ValueError: the journal is of another evaluation; the first difference is named.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], resume: bool) -> None:
        self.file = folder / FILE
        self.records: list[EpisodeRecord] = []
        self.seconds = 0.0
        lines = self._lines() if resume else []
        if lines:
            _same(lines[0], identity, self.file)
            names = {field.name for field in fields(EpisodeRecord)}
            for line in lines[1:]:
                self.seconds = line.pop("elapsed")
                self.records.append(EpisodeRecord(**{key: value for key, value in line.items() if key in names}))
        text = [json.dumps(dict(identity))]
        text += [json.dumps({**asdict(record), "elapsed": self.seconds}) for record in self.records]
        write_text(self.file, "\n".join(text) + "\n")  # drops a line that was cut short

    def add(self, record: EpisodeRecord, seconds: float) -> None:
        """Note a finished episode; `seconds` is how long all took so far."""
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**asdict(record), "elapsed": seconds}) + "\n")

    def end(self) -> None:
        """The result is written: forget the journal."""
        self.file.unlink(missing_ok=True)

    def _lines(self) -> list[dict[str, Any]]:
        if not self.file.is_file():
            return []
        found = []
        for line in self.file.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:  # cut short by a kill: that episode runs again
                break
        return found


def _same(there: Mapping[str, Any], wanted: Mapping[str, Any], file: Path, path: str = "") -> None:
    wanted = json.loads(json.dumps(dict(wanted)))
    for key in sorted(set(there) | set(wanted)):
        left, right = there.get(key), wanted.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            _same(left, right, file, f"{path}{key}.")
        elif left != right:
            raise ValueError(
                f"{file} is of an unfinished evaluation with {path}{key} = {left!r}, now it is {right!r}: "
                "choose another out=, or resume=false to discard it"
            )
