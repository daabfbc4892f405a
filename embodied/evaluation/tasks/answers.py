"""Answers, noted batch by batch, so that an interrupted evaluation goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embodied.files import write_text

FILE = "answers.partial.jsonl"


class Answers:
    """`<folder>/answers.partial.jsonl`: what is asked of whom, then a line per answer.

    Args:
        folder: the result folder.
        identity: what decides an answer, as JSON.
        resume: whether to go on with what is there; otherwise it is begun anew.

    Attributes:
        given: answers that are there already, by id.

    Raises:
        ValueError: the file is of another evaluation; the first difference is named.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], resume: bool) -> None:
        self.file = folder / FILE
        self.given: dict[str, str] = {}
        wanted = json.loads(json.dumps(dict(identity)))
        lines = self._lines() if resume else []
        if lines:
            differs = next((key for key in {*wanted, *lines[0]} if wanted.get(key) != lines[0].get(key)), None)
            if differs is not None:
                raise ValueError(
                    f"{self.file} is of an unfinished evaluation with another {differs}: choose another out=, or "
                    "resume=false to discard it"
                )
            self.given = {line["id"]: line["answer"] for line in lines[1:]}
        self._head = json.dumps(wanted)
        self._begun = False  # nothing is written before there is an answer to keep

    def add(self, names: Sequence[str], answers: Sequence[str]) -> None:
        """Note answers."""
        if not self._begun:  # drops a line that was cut short
            kept = [json.dumps({"id": name, "answer": answer}) for name, answer in self.given.items()]
            write_text(self.file, "\n".join([self._head, *kept]) + "\n")
            self._begun = True
        with self.file.open("a", encoding="utf-8") as file:
            for name, answer in zip(names, answers, strict=True):
                file.write(json.dumps({"id": name, "answer": answer}) + "\n")
        self.given.update(zip(names, answers, strict=True))

    def end(self) -> None:
        """The result is written: forget them."""
        self.file.unlink(missing_ok=True)

    def _lines(self) -> list[dict[str, Any]]:
        if not self.file.is_file():
            return []
        found = []
        for line in self.file.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:  # cut short by a kill: that one is asked again
                break
        return found
